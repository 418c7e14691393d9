ALTER TABLE {{prefix}}executions ADD COLUMN ready_at BIGINT;
ALTER TABLE {{prefix}}executions ADD COLUMN due BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE {{prefix}}executions ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN gate BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN paid BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE {{prefix}}executions SET status = q.status, ready_at = q.ready_at, due = q.due, gate = q.gate, paid = q.paid, attempt = q.attempt, losses = q.losses
  FROM {{prefix}}runs AS q WHERE q.seq = {{prefix}}executions.seq;
ALTER TABLE {{prefix}}payloads RENAME TO {{prefix}}payloads_after;
CREATE TABLE {{prefix}}payloads (
  project_id {{text}} NOT NULL,
  execution_id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  sealed {{bytes}} NOT NULL,
  PRIMARY KEY (project_id, execution_id)
);
INSERT INTO {{prefix}}payloads (project_id, execution_id, function_id, sealed)
  SELECT e.project_id, e.id, e.function_id, coalesce(q.sealed, p.sealed) FROM {{prefix}}runs q JOIN {{prefix}}executions e ON e.seq = q.seq LEFT JOIN {{prefix}}payloads_after p ON p.seq = q.seq
  WHERE q.sealed IS NOT NULL OR p.sealed IS NOT NULL;
DROP TABLE {{prefix}}payloads_after;
DROP TABLE {{prefix}}runs;
CREATE INDEX {{prefix}}executions_turns ON {{prefix}}executions (project_id, rank, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
CREATE INDEX {{prefix}}executions_later ON {{prefix}}executions (ready_at) WHERE ready_at IS NOT NULL AND NOT due;
CREATE INDEX {{prefix}}executions_inside ON {{prefix}}executions (project_id, function_id, lane) WHERE gate = 2;
CREATE INDEX {{prefix}}executions_parked ON {{prefix}}executions (project_id, function_id, rank, seq) WHERE gate = 1;
