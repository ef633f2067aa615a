#![no_main]

qlnet_fuzz::target!("packed", qlnet_fuzz::packed);
