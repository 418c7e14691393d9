CREATE TABLE {{prefix}}functions (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  id {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  name {{text}} NOT NULL,
  runtime {{text}} NOT NULL,
  execute {{text}} NOT NULL,
  events {{text}} NOT NULL,
  scopes {{text}} NOT NULL,
  schedule {{text}} NOT NULL,
  timeout BIGINT NOT NULL,
  enabled BOOLEAN NOT NULL,
  live BOOLEAN NOT NULL,
  logging BOOLEAN NOT NULL,
  entrypoint {{text}} NOT NULL,
  commands {{text}} NOT NULL,
  specification {{text}} NOT NULL,
  deployment {{text}} NOT NULL,
  next_run_at BIGINT,
  last_run_at BIGINT,
  policy {{text}} NOT NULL,
  installation_id {{text}} NOT NULL,
  provider_repository_id {{text}} NOT NULL,
  provider_branch {{text}} NOT NULL,
  provider_root_directory {{text}} NOT NULL,
  provider_silent_mode BOOLEAN NOT NULL,
  revision BIGINT NOT NULL,
  search {{text}} NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}functions_due ON {{prefix}}functions (next_run_at) WHERE next_run_at IS NOT NULL;
CREATE INDEX {{prefix}}functions_listen ON {{prefix}}functions (project_id, seq) WHERE events <> '[]';
CREATE TABLE {{prefix}}keys (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  kind {{text}} NOT NULL,
  name {{text}} NOT NULL,
  value {{text}} NOT NULL,
  expires_at BIGINT NOT NULL,
  UNIQUE (project_id, kind, name)
);
CREATE INDEX {{prefix}}keys_expired ON {{prefix}}keys (expires_at);
CREATE TABLE {{prefix}}deployments (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  type {{text}} NOT NULL,
  entrypoint {{text}} NOT NULL,
  commands {{text}} NOT NULL,
  activate BOOLEAN NOT NULL,
  size BIGINT NOT NULL,
  source_blob {{text}} NOT NULL,
  chunks_total BIGINT NOT NULL,
  chunk_size BIGINT NOT NULL,
  chunks {{text}} NOT NULL,
  status {{text}} NOT NULL,
  build_id {{text}} NOT NULL,
  build_started BIGINT,
  build_ended BIGINT,
  build_size BIGINT NOT NULL,
  artefact_blob {{text}} NOT NULL,
  attempt BIGINT NOT NULL,
  ready_at BIGINT,
  search {{text}} NOT NULL,
  build_logs {{text}} NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}deployments_list ON {{prefix}}deployments (project_id, function_id, created_at, seq);
CREATE INDEX {{prefix}}deployments_fair ON {{prefix}}deployments (project_id, ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}deployments_due ON {{prefix}}deployments (ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE TABLE {{prefix}}variables (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  key {{text}} NOT NULL,
  sealed {{bytes}} NOT NULL,
  UNIQUE (project_id, id),
  UNIQUE (project_id, function_id, key)
);
CREATE TABLE {{prefix}}executions (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  deployment_id {{text}} NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  user_id {{text}} NOT NULL,
  trigger_kind {{text}} NOT NULL,
  event {{text}} NOT NULL,
  status {{text}} NOT NULL,
  request_method {{text}} NOT NULL,
  request_path {{text}} NOT NULL,
  request_headers {{text}} NOT NULL,
  response_status_code BIGINT NOT NULL,
  response_headers {{text}} NOT NULL,
  duration BIGINT NOT NULL,
  scheduled_at BIGINT,
  attempt BIGINT NOT NULL,
  ready_at BIGINT,
  logs {{text}} NOT NULL,
  errors {{text}} NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}executions_list ON {{prefix}}executions (project_id, function_id, created_at, seq);
CREATE INDEX {{prefix}}executions_status ON {{prefix}}executions (project_id, function_id, status, created_at, seq);
CREATE INDEX {{prefix}}executions_user ON {{prefix}}executions (project_id, function_id, user_id, created_at, seq) WHERE user_id <> '';
CREATE INDEX {{prefix}}executions_fair ON {{prefix}}executions (project_id, ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}executions_due ON {{prefix}}executions (ready_at{{tie}}) WHERE ready_at IS NOT NULL;
CREATE TABLE {{prefix}}payloads (
  project_id {{text}} NOT NULL,
  execution_id {{text}} NOT NULL,
  function_id {{text}} NOT NULL,
  sealed {{bytes}} NOT NULL,
  PRIMARY KEY (project_id, execution_id)
);
CREATE TABLE {{prefix}}logs (
  seq {{seq}},
  project_id {{text}} NOT NULL,
  kind {{text}} NOT NULL,
  id {{text}} NOT NULL,
  at BIGINT NOT NULL,
  stream {{text}} NOT NULL,
  data {{bytes}} NOT NULL
);
CREATE INDEX {{prefix}}logs_of ON {{prefix}}logs (project_id, kind, id, seq);
