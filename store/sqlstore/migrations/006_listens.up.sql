-- oldest: 5
CREATE TABLE {{prefix}}listens (
  project_id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  topic {{text}} NOT NULL,
  PRIMARY KEY (topic, function_id)
);
CREATE INDEX {{prefix}}listens_function ON {{prefix}}listens (function_id, project_id);
{{listening}}
UPDATE {{prefix}}functions SET events = events WHERE events <> '[]';
