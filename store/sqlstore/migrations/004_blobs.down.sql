DROP TABLE {{prefix}}blob_chunks;
DROP TABLE {{prefix}}blobs;
