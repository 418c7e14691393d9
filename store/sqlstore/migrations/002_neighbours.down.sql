ALTER TABLE {{prefix}}migrations DROP COLUMN oldest;
