//! No modules of one folder import each other in a circle. A module can then be read, tested and moved without those
//! that use it.
//!
//! A folder's modules are compared as wholes: what `audio/ogg/clock.rs` imports counts for `ogg` in the folder `audio`.
//! A name taken from a parent module counts as an import of the module that declares it. A parent and its own children
//! are one unit and may know each other.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;

use crate::architecture::sources;

/// The names that lead to a module from the crate's root.
type Module = Vec<String>;

/// Circles that `.github/decisions.md` defends, as the modules' names in order.
const DEFENDED: &[&[&str]] = &[];

#[test]
fn no_modules_of_a_folder_import_each_other_in_a_circle() {
    let found = circles(&sources(&["src", "jobs"]));
    let undefended: Vec<_> = found.iter().filter(|circle| !DEFENDED.iter().any(|known| circle == known)).collect();
    assert!(
        undefended.is_empty(),
        "\n{}\n",
        undefended.iter().map(|circle| circle.join(" ↔ ") + "\n").collect::<String>()
    );
    assert_eq!(found.len(), DEFENDED.len(), "a circle that is gone needs no defence");
}

#[test]
fn a_circle_is_seen() {
    let of = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect();
        circles(&files)
    };
    let parent = ("src/a.rs", "mod b; mod c; pub use c::{C as D};");
    assert_eq!(
        of(&[parent, ("src/a/b.rs", "use super::c::C;"), ("src/a/c.rs", "pub struct C;")]),
        Vec::<Module>::new()
    );
    for back in
        ["use super::c;", "use super::D;", "use crate::a::c::C;", "use super::{X, c::C};", "fn f() { super::c::g() }"]
    {
        let c = ("src/a/c.rs", "use super::b::B; pub struct C;");
        assert_eq!(of(&[parent, ("src/a/b.rs", back), c]), [["a::b", "a::c"]], "{back}");
    }
    let deep = [parent, ("src/a/b.rs", "mod e;"), ("src/a/b/e.rs", "use super::super::c::C;")];
    assert_eq!(of(&[&deep[..], &[("src/a/c.rs", "use super::b::B;")]].concat()), [["a::b", "a::c"]]);
    let beside = [parent, ("src/a/b/tests.rs", "use crate::a::c::C;"), ("src/a/c.rs", "use super::b::B;")];
    assert_eq!(of(&beside), Vec::<Module>::new());
    let tests = "#[cfg(test)] mod tests { use super::super::c::C; }";
    assert_eq!(of(&[parent, ("src/a/b.rs", tests), ("src/a/c.rs", "use super::b::B;")]), Vec::<Module>::new());
}

/// Groups of modules of one folder that import each other, each sorted by name. Tests are left out.
fn circles(files: &[(String, String)]) -> Vec<Vec<String>> {
    let parsed: BTreeMap<Module, syn::File> = files
        .iter()
        .filter(|(path, _)| !path.ends_with("/tests.rs"))
        .map(|(path, source)| {
            (module_of(path), syn::parse_file(source).unwrap_or_else(|error| panic!("{path}: {error}")))
        })
        .collect();
    let imports: BTreeMap<&Module, Imports> =
        parsed.iter().map(|(module, file)| (module, Imports::of(module, file))).collect();
    // For each folder, which of its modules imports which.
    let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let targets: Vec<(&Module, &Module)> = imports
        .iter()
        .flat_map(|(from, found)| found.paths.iter().map(move |path| (*from, path)))
        .filter_map(|(from, path)| Some((from, declaring(path, &imports, 0)?)))
        .collect();
    for (from, to) in targets {
        let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
            folders.entry(&from[..shared]).or_default().entry(one).or_default().insert(other);
        }
    }
    let named = |folder: &[String], name: &str| [folder, &[name.to_owned()]].concat().join("::");
    folders
        .iter()
        .flat_map(|(folder, edges)| {
            knots(edges).into_iter().map(move |knot| knot.into_iter().map(|name| named(folder, name)).collect())
        })
        .collect()
}

/// The groups in which each module reaches each other one.
fn knots<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<Vec<&'a str>> {
    let reached = |from: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(edges.get(at).into_iter().flatten().copied().filter(|next| seen.insert(*next)));
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|from| (*from, reached(from))).collect();
    let knot = |from: &'a str| -> Vec<&'a str> {
        all[from].iter().copied().filter(|to| all.get(to).is_some_and(|back| back.contains(from))).collect()
    };
    edges.keys().map(|from| knot(from)).filter(|knot| knot.len() > 1).collect()
}

/// The module of the crate that declares what a path names. `None` for paths that lead out of the crate.
fn declaring<'a>(path: &[String], imports: &BTreeMap<&'a Module, Imports>, depth: usize) -> Option<&'a Module> {
    let (module, rest) = (0..=path.len())
        .rev()
        .find_map(|end| imports.get_key_value(&path[..end].to_vec()).map(|(module, _)| (*module, &path[end..])))?;
    let target = rest.first().and_then(|name| imports[module].named.get(name));
    match target {
        Some(further) if depth < 8 => declaring(further, imports, depth + 1).or(Some(module)),
        _ => Some(module),
    }
}

/// What a file imports, as paths from the crate's root.
#[derive(Default)]
struct Imports {
    module: Module,
    paths: BTreeSet<Vec<String>>,
    /// Every name in use, since a child module may take it from its parent.
    named: BTreeMap<String, Vec<String>>,
}

impl Imports {
    fn of(module: &Module, file: &syn::File) -> Self {
        let mut imports = Self { module: module.clone(), ..Self::default() };
        imports.visit_file(file);
        imports
    }

    /// The path from the crate's root. Relative paths of other crates' names lead nowhere and are harmless.
    fn absolute(&self, path: &[String]) -> Vec<String> {
        let mut at = self.module.clone();
        let mut rest = path;
        while let Some((first, further)) = rest.split_first() {
            match first.as_str() {
                "crate" | "aftercall" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            rest = further;
        }
        [&at, rest].concat()
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => return self.import(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(tree, before)),
            syn::UseTree::Glob(_) => (before.to_vec(), None),
            syn::UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
        };
        let path = self.absolute(&path);
        if let Some(name) = name {
            self.named.insert(name, path.clone());
        }
        self.paths.insert(path);
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            let path = self.absolute(&names);
            self.paths.insert(path);
        }
        syn::visit::visit_path(self, path);
    }

    /// Modules inside a file are tests. Tests may use anything.
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}
}

/// `src/audio/ogg.rs` → `audio::ogg`; `jobs/mod.rs` → `jobs`.
fn module_of(path: &str) -> Module {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let names = inside.split('/').filter(|name| !matches!(*name, "lib" | "main" | "mod"));
    names.map(str::to_owned).collect()
}
