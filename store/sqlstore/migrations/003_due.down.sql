DROP INDEX {{prefix}}executions_later;
DROP INDEX {{prefix}}deployments_later;
DROP INDEX {{prefix}}executions_turn;
DROP INDEX {{prefix}}deployments_turn;
CREATE INDEX {{prefix}}deployments_fair ON {{prefix}}deployments (project_id, ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}executions_fair ON {{prefix}}executions (project_id, ready_at{{tie}}) WHERE ready_at IS NOT NULL;
ALTER TABLE {{prefix}}executions DROP COLUMN due;
ALTER TABLE {{prefix}}deployments DROP COLUMN due;
