-- oldest: 3
CREATE TABLE {{prefix}}blobs (
  id {{seq}},
  key {{text}} NOT NULL,
  size BIGINT NOT NULL,
  chunk BIGINT NOT NULL,
  modified_at BIGINT NOT NULL,
  remove_at BIGINT
);
CREATE UNIQUE INDEX {{prefix}}blobs_key ON {{prefix}}blobs (key) WHERE remove_at IS NULL;
CREATE INDEX {{prefix}}blobs_remove ON {{prefix}}blobs (remove_at) WHERE remove_at IS NOT NULL;
CREATE TABLE {{prefix}}blob_chunks (
  blob_id BIGINT NOT NULL,
  n BIGINT NOT NULL,
  data {{bytes}} NOT NULL,
  PRIMARY KEY (blob_id, n)
);
