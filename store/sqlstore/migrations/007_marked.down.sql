CREATE INDEX {{prefix}}executions_due ON {{prefix}}executions (ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}deployments_due ON {{prefix}}deployments (ready_at{{tie}}) WHERE ready_at IS NOT NULL;
