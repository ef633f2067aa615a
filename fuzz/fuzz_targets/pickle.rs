#![no_main]

qlnet_fuzz::target!("pickle", qlnet_fuzz::pickle);
