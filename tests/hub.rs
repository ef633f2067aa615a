//! Downloads from a server that responds as the hub does, and as it should not.

#[path = "support/hub_server.rs"]
mod hub_server;
#[path = "support/hub_setting.rs"]
mod hub_setting;
#[path = "support/pipe.rs"]
mod pipe;

#[path = "hub/broken_connections.rs"]
mod broken_connections;
#[path = "hub/cache.rs"]
mod cache;
#[path = "hub/datasets.rs"]
mod datasets;
#[path = "hub/responses.rs"]
mod responses;
