#![no_main]

qlnet_fuzz::target!("webdataset", qlnet_fuzz::tar);
