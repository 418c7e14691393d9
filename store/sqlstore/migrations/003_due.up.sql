-- oldest: 2
ALTER TABLE {{prefix}}deployments ADD COLUMN due BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE {{prefix}}executions ADD COLUMN due BOOLEAN NOT NULL DEFAULT FALSE;
DROP INDEX {{prefix}}deployments_fair;
DROP INDEX {{prefix}}executions_fair;
CREATE INDEX {{prefix}}deployments_turn ON {{prefix}}deployments (project_id, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
CREATE INDEX {{prefix}}executions_turn ON {{prefix}}executions (project_id, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
CREATE INDEX {{prefix}}deployments_later ON {{prefix}}deployments (ready_at) WHERE ready_at IS NOT NULL AND NOT due;
CREATE INDEX {{prefix}}executions_later ON {{prefix}}executions (ready_at) WHERE ready_at IS NOT NULL AND NOT due;
