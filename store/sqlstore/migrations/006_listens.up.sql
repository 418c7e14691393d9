-- oldest: 5
CREATE TABLE {{prefix}}listens (
  project_id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  event {{text}} NOT NULL,
  PRIMARY KEY (project_id, function_id, event)
);
CREATE INDEX {{prefix}}listens_event ON {{prefix}}listens (project_id, event, function_id);
{{listening}}
UPDATE {{prefix}}functions SET events = events WHERE events <> '[]';
