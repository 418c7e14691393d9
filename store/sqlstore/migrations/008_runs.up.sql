-- oldest: 8
CREATE TABLE {{prefix}}runs (
  seq {{key}},
  project_id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  status {{text}} NOT NULL,
  ready_at BIGINT,
  due BOOLEAN NOT NULL,
  rank BIGINT NOT NULL,
  lane {{text}} NOT NULL,
  gate BIGINT NOT NULL DEFAULT 0,
  paid BOOLEAN NOT NULL DEFAULT FALSE,
  attempt BIGINT NOT NULL,
  losses BIGINT NOT NULL,
  sealed {{bytes}}
);
INSERT INTO {{prefix}}runs (seq, project_id, function_id, status, ready_at, due, rank, lane, gate, paid, attempt, losses, sealed)
  SELECT e.seq, e.project_id, e.function_id, e.status, e.ready_at, e.due, e.rank, e.lane, e.gate, e.paid, e.attempt, e.losses, CASE WHEN length(p.sealed) <= 1024 THEN p.sealed END
  FROM {{prefix}}executions e LEFT JOIN {{prefix}}payloads p ON p.project_id = e.project_id AND p.execution_id = e.id
  WHERE e.ready_at IS NOT NULL OR e.gate = 1 OR e.status = 'dead' OR p.sealed IS NOT NULL;
ALTER TABLE {{prefix}}payloads RENAME TO {{prefix}}payloads_before;
CREATE TABLE {{prefix}}payloads (
  seq {{key}},
  sealed {{bytes}} NOT NULL
);
INSERT INTO {{prefix}}payloads (seq, sealed)
  SELECT e.seq, p.sealed FROM {{prefix}}payloads_before p JOIN {{prefix}}executions e ON e.project_id = p.project_id AND e.id = p.execution_id
  WHERE length(p.sealed) > 1024;
DROP TABLE {{prefix}}payloads_before;
DROP INDEX {{prefix}}executions_turns;
DROP INDEX {{prefix}}executions_later;
DROP INDEX {{prefix}}executions_inside;
DROP INDEX {{prefix}}executions_parked;
CREATE INDEX {{prefix}}runs_turns ON {{prefix}}runs (project_id, rank, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
CREATE INDEX {{prefix}}runs_later ON {{prefix}}runs (ready_at) WHERE ready_at IS NOT NULL AND NOT due;
CREATE INDEX {{prefix}}runs_inside ON {{prefix}}runs (project_id, function_id, lane) WHERE gate = 2;
CREATE INDEX {{prefix}}runs_parked ON {{prefix}}runs (project_id, function_id, rank, seq) WHERE gate = 1;
ALTER TABLE {{prefix}}executions DROP COLUMN ready_at;
ALTER TABLE {{prefix}}executions DROP COLUMN due;
ALTER TABLE {{prefix}}executions DROP COLUMN gate;
ALTER TABLE {{prefix}}executions DROP COLUMN paid;
ALTER TABLE {{prefix}}executions DROP COLUMN losses;
