-- oldest: 4
ALTER TABLE {{prefix}}deployments ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN losses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {{prefix}}executions ADD COLUMN rank BIGINT NOT NULL DEFAULT 0;
DROP INDEX {{prefix}}executions_turn;
CREATE INDEX {{prefix}}executions_turns ON {{prefix}}executions (project_id, rank, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
ALTER TABLE {{prefix}}keys ADD COLUMN answer {{bytes}};
