#![no_main]

qlnet_fuzz::target!("checkpoint", qlnet_fuzz::checkpoint);
