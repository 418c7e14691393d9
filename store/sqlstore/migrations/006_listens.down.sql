{{deaf}}
DROP TABLE {{prefix}}listens;
