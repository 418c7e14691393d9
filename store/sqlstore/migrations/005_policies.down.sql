ALTER TABLE {{prefix}}keys DROP COLUMN answer;
DROP INDEX {{prefix}}executions_turns;
CREATE INDEX {{prefix}}executions_turn ON {{prefix}}executions (project_id, ready_at{{tie}}) WHERE due AND ready_at IS NOT NULL;
ALTER TABLE {{prefix}}executions DROP COLUMN rank;
ALTER TABLE {{prefix}}executions DROP COLUMN tries;
ALTER TABLE {{prefix}}executions DROP COLUMN losses;
ALTER TABLE {{prefix}}deployments DROP COLUMN losses;
