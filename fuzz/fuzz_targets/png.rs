#![no_main]

qlnet_fuzz::target!("png", qlnet_fuzz::png);
