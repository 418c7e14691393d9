CREATE TABLE {{prefix}}functions (
  seq {{seq}},
  project_id TEXT NOT NULL,
  id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  name TEXT NOT NULL,
  runtime TEXT NOT NULL,
  execute TEXT NOT NULL,
  events TEXT NOT NULL,
  scopes TEXT NOT NULL,
  schedule TEXT NOT NULL,
  timeout INTEGER NOT NULL,
  enabled BOOLEAN NOT NULL,
  live BOOLEAN NOT NULL,
  logging BOOLEAN NOT NULL,
  entrypoint TEXT NOT NULL,
  commands TEXT NOT NULL,
  specification TEXT NOT NULL,
  deployment TEXT NOT NULL,
  next_run_at BIGINT,
  last_run_at BIGINT,
  policy TEXT NOT NULL,
  installation_id TEXT NOT NULL,
  provider_repository_id TEXT NOT NULL,
  provider_branch TEXT NOT NULL,
  provider_root_directory TEXT NOT NULL,
  provider_silent_mode BOOLEAN NOT NULL,
  revision BIGINT NOT NULL,
  search TEXT NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}functions_due ON {{prefix}}functions (next_run_at) WHERE next_run_at IS NOT NULL;
CREATE INDEX {{prefix}}functions_listen ON {{prefix}}functions (project_id, seq) WHERE events <> '[]';
CREATE TABLE {{prefix}}keys (
  seq {{seq}},
  project_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  UNIQUE (project_id, kind, name)
);
CREATE INDEX {{prefix}}keys_expired ON {{prefix}}keys (expires_at);
CREATE TABLE {{prefix}}deployments (
  seq {{seq}},
  project_id TEXT NOT NULL,
  id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  type TEXT NOT NULL,
  entrypoint TEXT NOT NULL,
  commands TEXT NOT NULL,
  activate BOOLEAN NOT NULL,
  size BIGINT NOT NULL,
  source_blob TEXT NOT NULL,
  chunks_total INTEGER NOT NULL,
  chunk_size BIGINT NOT NULL,
  chunks TEXT NOT NULL,
  status TEXT NOT NULL,
  build_id TEXT NOT NULL,
  build_started BIGINT,
  build_ended BIGINT,
  build_size BIGINT NOT NULL,
  artefact_blob TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  ready_at BIGINT,
  search TEXT NOT NULL,
  build_logs TEXT NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}deployments_list ON {{prefix}}deployments (project_id, function_id, created_at, seq);
CREATE INDEX {{prefix}}deployments_fair ON {{prefix}}deployments (project_id, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}deployments_due ON {{prefix}}deployments (ready_at) WHERE ready_at IS NOT NULL;
CREATE TABLE {{prefix}}variables (
  seq {{seq}},
  project_id TEXT NOT NULL,
  id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  key TEXT NOT NULL,
  sealed {{bytes}} NOT NULL,
  UNIQUE (project_id, id),
  UNIQUE (project_id, function_id, key)
);
CREATE TABLE {{prefix}}executions (
  seq {{seq}},
  project_id TEXT NOT NULL,
  id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  deployment_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  user_id TEXT NOT NULL,
  trigger_kind TEXT NOT NULL,
  event TEXT NOT NULL,
  status TEXT NOT NULL,
  request_method TEXT NOT NULL,
  request_path TEXT NOT NULL,
  request_headers TEXT NOT NULL,
  response_status_code INTEGER NOT NULL,
  response_headers TEXT NOT NULL,
  duration BIGINT NOT NULL,
  scheduled_at BIGINT,
  attempt INTEGER NOT NULL,
  ready_at BIGINT,
  logs TEXT NOT NULL,
  errors TEXT NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX {{prefix}}executions_list ON {{prefix}}executions (project_id, function_id, created_at, seq);
CREATE INDEX {{prefix}}executions_status ON {{prefix}}executions (project_id, function_id, status, created_at, seq);
CREATE INDEX {{prefix}}executions_user ON {{prefix}}executions (project_id, function_id, user_id, created_at, seq) WHERE user_id <> '';
CREATE INDEX {{prefix}}executions_fair ON {{prefix}}executions (project_id, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX {{prefix}}executions_due ON {{prefix}}executions (ready_at) WHERE ready_at IS NOT NULL;
CREATE TABLE {{prefix}}payloads (
  project_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  sealed {{bytes}} NOT NULL,
  PRIMARY KEY (project_id, execution_id)
);
CREATE TABLE {{prefix}}logs (
  seq {{seq}},
  project_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  at BIGINT NOT NULL,
  stream TEXT NOT NULL,
  data {{bytes}} NOT NULL
);
CREATE INDEX {{prefix}}logs_of ON {{prefix}}logs (project_id, kind, id, seq);
