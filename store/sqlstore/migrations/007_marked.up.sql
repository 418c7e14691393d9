-- oldest: 6
DROP INDEX {{prefix}}deployments_due;
DROP INDEX {{prefix}}executions_due;
