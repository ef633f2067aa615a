#![no_main]

qlnet_fuzz::target!("tar", qlnet_fuzz::tar);
