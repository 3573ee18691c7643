//! Whatever a platform sends, reading it gives a value or an error, never a panic.

use std::collections::BTreeMap;

use aftercall::domain::CallId;
use aftercall::wire::{Cursor, Vendor, atoms};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{canonical, dialect, fixture, json_fixture};

/// Reads a body as everything it could be.
fn read_as_anything(body: &[u8]) {
    for platform in [Vendor::Krosai, Vendor::Zudu, Vendor::Atoms] {
        let dialect = dialect(platform);
        if let Ok(page) = dialect.read_page(body, &dialect.first_page()) {
            page.calls.iter().for_each(|call| drop(canonical(call)));
        }
        let id = CallId::parse("call_fx001").unwrap();
        if let Ok(call) = dialect.read_detail(body, &id) {
            assert_eq!(call.id, id);
        }
        let _ = dialect.read_recording(body);
        let _ = dialect.read_written(body);
    }
    let _ = atoms::post_conversation(body);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
        "CALL-[0-9]{12,14}-[a-f]{2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                "id|call_id|callId|status|data|calls|logs|words|role|content|[a-z]{1,4}",
                inner,
                0..4
            )
            .prop_map(|members: BTreeMap<String, Value>| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Replaces the value at the `index`-th place of a tree walk.
fn replace(value: &mut Value, index: &mut usize, with: &Value) {
    if *index == 0 {
        *value = with.clone();
    }
    *index = index.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, index, with)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, index, with)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_anything(&body);
    }

    #[test]
    fn no_json_is_too_strange(body in any_json()) {
        read_as_anything(body.to_string().as_bytes());
    }

    #[test]
    fn no_member_is_relied_on(which in 0..5_usize, index in 0..90_usize, with in any_json()) {
        let names = ["krosai_v1_list", "krosai_v1_detail", "zudu_list", "atoms_detail", "atoms_post_conversation"];
        let mut body = json_fixture(&format!("{}.json", names[which]));
        replace(&mut body, &mut index.clone(), &with);
        read_as_anything(body.to_string().as_bytes());
    }

    #[test]
    fn no_stored_cursor_is_too_strange(page in any::<u64>(), offset in any::<u64>(), limit in any::<u64>()) {
        let stored = json!({ "page": page, "offset": offset, "limit": limit });
        if let Ok(cursor) = serde_json::from_value::<Cursor>(stored) {
            for platform in [Vendor::Krosai, Vendor::Zudu, Vendor::Atoms] {
                let dialect = dialect(platform);
                let _ = (dialect.list(&cursor), cursor.halved());
                let _ = dialect.read_page(&fixture("zudu_list.json"), &cursor);
            }
        }
    }
}
