//! The crop that the network sees, against Pillow's.

mod support;

use qlnet::input::Interpolation;
use qlnet::input::Preprocess;
use qlnet::input::{Options, decode};
use qlnet::internals::{Rect, resize_crop};
use support::{fixture, reference_dir};

/// `tests/fixtures/pillow/NAME.png` and what Pillow makes of it, `NAME-WxH-INTERPOLATION.png`.
#[test]
fn resize_equals_pillow() {
    let mut compared = 0;
    for entry in std::fs::read_dir(fixture("pillow")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
        let [name, size, interpolation] = stem.split('-').collect::<Vec<_>>()[..] else { continue };
        let (width, height) = size.split_once('x').unwrap();
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        let interpolation = match interpolation {
            "bicubic" => Interpolation::Bicubic,
            "bilinear" => Interpolation::Bilinear,
            other => panic!("{other}"),
        };
        let source = image::open(path.with_file_name(format!("{name}.png"))).unwrap().into_rgb8();
        let whole = Rect { x: 0, y: 0, width, height };
        let expected = image::open(&path).unwrap().into_rgb8();
        let found = resize_crop(&source, (width, height), interpolation, whole);
        let differing = found.iter().zip(expected.iter()).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{stem}");
        compared += 1;
    }
    assert_eq!(compared, 16);
}

#[test]
fn crops_of_the_reference_images_equal_pillow() {
    let Some(dir) = reference_dir() else { return };
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let timm = Preprocess::timm(224, 0.95, Interpolation::Bicubic);
    for image in expected["images"].as_array().unwrap() {
        let name = image["image"].as_str().unwrap();
        let crop = timm
            .apply(&decode(&std::fs::read(dir.join(name)).unwrap(), name.as_ref(), Options::default()).unwrap())
            .unwrap();
        let pillow = image::open(dir.join(image["crop"].as_str().unwrap())).unwrap().into_rgb8();
        assert_eq!(crop, pillow, "{name}");
    }
}
