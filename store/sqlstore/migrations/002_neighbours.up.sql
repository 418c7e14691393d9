-- oldest: 1
ALTER TABLE {{prefix}}migrations ADD COLUMN oldest BIGINT NOT NULL DEFAULT 0;
