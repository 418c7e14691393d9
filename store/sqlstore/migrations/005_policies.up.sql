-- oldest: 4
ALTER TABLE {{prefix}}deployments ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN rank BIGINT NOT NULL DEFAULT 0;
DROP INDEX {{prefix}}executions_turn;
CREATE INDEX {{prefix}}executions_turns ON {{prefix}}executions (project_id, rank, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
ALTER TABLE {{prefix}}keys ADD COLUMN answer {{bytes}};
ALTER TABLE {{prefix}}executions ADD COLUMN lane {{text}} NOT NULL DEFAULT '';
ALTER TABLE {{prefix}}executions ADD COLUMN gate BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN paid BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX {{prefix}}executions_inside ON {{prefix}}executions (project_id, function_id, lane) WHERE gate = 2;
CREATE INDEX {{prefix}}executions_parked ON {{prefix}}executions (project_id, function_id, rank, seq) WHERE gate = 1;
CREATE TABLE {{prefix}}rates (
  project_id {{text}} NOT NULL,
  name {{text}} NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (project_id, name)
);
