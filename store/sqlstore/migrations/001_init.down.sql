DROP TABLE {{prefix}}keys;
DROP TABLE {{prefix}}logs;
DROP TABLE {{prefix}}payloads;
DROP TABLE {{prefix}}executions;
DROP TABLE {{prefix}}variables;
DROP TABLE {{prefix}}deployments;
DROP TABLE {{prefix}}functions;
