#![no_main]

qlnet_fuzz::target!("ico");
