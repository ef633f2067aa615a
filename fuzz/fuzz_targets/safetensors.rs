#![no_main]

qlnet_fuzz::target!("safetensors", qlnet_fuzz::safetensors);
