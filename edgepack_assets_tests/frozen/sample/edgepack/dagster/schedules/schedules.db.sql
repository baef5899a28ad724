BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('29b539ebc72a');
CREATE TABLE asset_daemon_asset_evaluations (
	id INTEGER NOT NULL, 
	evaluation_id INTEGER, 
	asset_key TEXT, 
	asset_evaluation_body TEXT, 
	num_requested INTEGER, 
	num_skipped INTEGER, 
	num_discarded INTEGER, 
	create_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	PRIMARY KEY (id)
);
CREATE TABLE instigators (
	id INTEGER NOT NULL, 
	selector_id VARCHAR(255), 
	repository_selector_id VARCHAR(255), 
	status VARCHAR(63), 
	instigator_type VARCHAR(63), 
	instigator_body TEXT, 
	create_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	update_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	PRIMARY KEY (id), 
	UNIQUE (selector_id)
);
INSERT INTO "instigators" VALUES(1,'e5864d8d1bbcd50c61cdf96ccf70027c1a689154','0f1396c5c1fc97a4ce1205e10451bf4441998b84','DECLARED_IN_CODE','SENSOR','{"__class__": "InstigatorState", "job_specific_data": {"__class__": "SensorInstigatorData", "cursor": "{\"format\":1,\"model\":\"press_model\",\"started\":1795707407709,\"baseline\":[2,1795707384235],\"handled\":{\"recent\":{\"1\":1795707384128,\"2\":1795707384235},\"older\":\"\",\"older_until\":0},\"pending\":\"\",\"waiting\":{},\"runs\":{\"2\":[1795707384235,1,1795707407]},\"top\":2,\"ghost\":[0,0],\"sweep_due\":1795708307,\"turn\":1}", "last_run_key": "press|press_model:2|2026-11-26T15:36:24.235+00:00|1", "last_sensor_start_timestamp": null, "last_tick_start_timestamp": null, "last_tick_success_timestamp": null, "last_tick_timestamp": 1795707407.7680564, "min_interval": null, "sensor_type": null}, "job_type": {"__enum__": "InstigatorType.SENSOR"}, "origin": {"__class__": "ExternalJobOrigin", "external_repository_origin": {"__class__": "ExternalRepositoryOrigin", "repository_location_origin": {"__class__": "InProcessRepositoryLocationOrigin", "container_context": null, "container_image": null, "entry_point": ["dagster"], "loadable_target_origin": {"__class__": "LoadableTargetOrigin", "attribute": null, "executable_path": null, "module_name": "edgepack_assets.definitions", "package_name": null, "python_file": null, "working_directory": null}, "location_name": "<<in_process>>"}, "repository_name": "__repository__"}, "job_name": "press_models"}, "status": {"__enum__": "InstigatorStatus.DECLARED_IN_CODE"}}','2026-11-26 15:36:47','2026-11-26 15:36:47');
CREATE TABLE job_ticks (
	id INTEGER NOT NULL, 
	job_origin_id VARCHAR(255), 
	selector_id VARCHAR(255), 
	status VARCHAR(63), 
	type VARCHAR(63), 
	timestamp TIMESTAMP, 
	tick_body TEXT, 
	create_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	update_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	PRIMARY KEY (id)
);
INSERT INTO "job_ticks" VALUES(1,'8da7ff31e8c5963b9064c3ef37dd183204f7d8e1','e5864d8d1bbcd50c61cdf96ccf70027c1a689154','SUCCESS','SENSOR','2026-11-26 15:36:47.828268','{"__class__": "TickData", "auto_materialize_evaluation_id": null, "consecutive_failure_count": 0, "cursor": null, "dynamic_partitions_request_results": [], "end_timestamp": null, "error": null, "failure_count": 0, "job_name": "press_models", "job_origin_id": "8da7ff31e8c5963b9064c3ef37dd183204f7d8e1", "job_type": {"__enum__": "InstigatorType.SENSOR"}, "log_key": null, "origin_run_ids": [], "reserved_run_ids": [], "run_ids": ["6f0c1a52-0d5e-4c1b-9a3e-5b0d3f6c7a11"], "run_keys": [], "run_requests": [], "selector_id": "e5864d8d1bbcd50c61cdf96ccf70027c1a689154", "skip_reason": null, "status": {"__enum__": "TickStatus.SUCCESS"}, "timestamp": 1795707407.8282678, "user_interrupted": false}','2026-11-26 15:36:47','2026-11-26 15:36:47');
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	job_origin_id VARCHAR(255), 
	selector_id VARCHAR(255), 
	repository_origin_id VARCHAR(255), 
	status VARCHAR(63), 
	job_type VARCHAR(63), 
	job_body TEXT, 
	create_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	update_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	PRIMARY KEY (id), 
	UNIQUE (job_origin_id)
);
INSERT INTO "jobs" VALUES(1,'8da7ff31e8c5963b9064c3ef37dd183204f7d8e1',NULL,'f37a46458657ce40fae8dd5f4c60dcd2f5f90a42','DECLARED_IN_CODE','SENSOR','{"__class__": "InstigatorState", "job_specific_data": {"__class__": "SensorInstigatorData", "cursor": "{\"format\":1,\"model\":\"press_model\",\"started\":1795707407709,\"baseline\":[2,1795707384235],\"handled\":{\"recent\":{\"1\":1795707384128,\"2\":1795707384235},\"older\":\"\",\"older_until\":0},\"pending\":\"\",\"waiting\":{},\"runs\":{\"2\":[1795707384235,1,1795707407]},\"top\":2,\"ghost\":[0,0],\"sweep_due\":1795708307,\"turn\":1}", "last_run_key": "press|press_model:2|2026-11-26T15:36:24.235+00:00|1", "last_sensor_start_timestamp": null, "last_tick_start_timestamp": null, "last_tick_success_timestamp": null, "last_tick_timestamp": 1795707407.7680564, "min_interval": null, "sensor_type": null}, "job_type": {"__enum__": "InstigatorType.SENSOR"}, "origin": {"__class__": "ExternalJobOrigin", "external_repository_origin": {"__class__": "ExternalRepositoryOrigin", "repository_location_origin": {"__class__": "InProcessRepositoryLocationOrigin", "container_context": null, "container_image": null, "entry_point": ["dagster"], "loadable_target_origin": {"__class__": "LoadableTargetOrigin", "attribute": null, "executable_path": null, "module_name": "edgepack_assets.definitions", "package_name": null, "python_file": null, "working_directory": null}, "location_name": "<<in_process>>"}, "repository_name": "__repository__"}, "job_name": "press_models"}, "status": {"__enum__": "InstigatorStatus.DECLARED_IN_CODE"}}','2026-11-26 15:36:47','2026-11-26 15:36:47');
CREATE TABLE secondary_indexes (
	id INTEGER NOT NULL, 
	name VARCHAR(512), 
	create_timestamp DATETIME DEFAULT CURRENT_TIMESTAMP, 
	migration_completed DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "secondary_indexes" VALUES(1,'schedule_jobs_selector_id','2026-11-26 15:36:29','2026-11-26 15:36:29.677366');
INSERT INTO "secondary_indexes" VALUES(2,'schedule_ticks_selector_id','2026-11-26 15:36:29','2026-11-26 15:36:29.775845');
CREATE INDEX ix_jobs_job_type ON jobs (job_type);
CREATE INDEX ix_instigators_instigator_type ON instigators (instigator_type);
CREATE INDEX idx_job_tick_timestamp ON job_ticks (job_origin_id, timestamp);
CREATE INDEX idx_job_tick_status ON job_ticks (job_origin_id, status);
CREATE INDEX idx_tick_selector_timestamp ON job_ticks (selector_id, timestamp);
CREATE INDEX ix_job_ticks_job_origin_id ON job_ticks (job_origin_id);
CREATE UNIQUE INDEX idx_asset_daemon_asset_evaluations_asset_key_evaluation_id ON asset_daemon_asset_evaluations (asset_key, evaluation_id);
CREATE INDEX ix_asset_daemon_asset_evaluations_evaluation_id ON asset_daemon_asset_evaluations (evaluation_id);
COMMIT;
