//! The layers of a configuration. An error names the layer that causes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use config::builder::DefaultState;
use config::{ConfigBuilder, Environment, File, FileFormat};

use super::secrets::is_secret;
use super::settings::Config;

/// Read when `--config` is not given and this file exists.
const DEFAULT_FILE: &str = "aftercall.toml";
const DEFAULTS: &str = include_str!("../config.default.toml");
/// Prefix of the variables `AFTERCALL__SECTION__KEY`.
const PREFIX: &str = "AFTERCALL";
const SEPARATOR: &str = "__";

/// Defaults, file and environment. A later layer overrides an earlier one.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Path and text of the file.
    file: Option<(PathBuf, String)>,
    /// Variables of the environment, by their original names.
    variables: BTreeMap<String, String>,
}

impl Layers {
    /// Reads `file`, or `./aftercall.toml` where it exists, and the environment.
    pub(super) fn read(file: Option<&Path>) -> Result<Self> {
        let found = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        let file = match file.map(Path::to_owned).or_else(found) {
            None => None,
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(&path);
                let text = text.with_context(|| format!("cannot read configuration file {shown}"))?;
                toml::from_str::<toml::Table>(&text).map_err(|err| anyhow!("{shown}: {}", misread(&text, &err)))?;
                Some((path, text))
            }
        };
        Ok(Self { file, variables: variables(environment())? })
    }

    /// # Errors
    /// The text is not valid TOML.
    pub(super) fn of_text(text: &str) -> Result<Self> {
        let read = toml::from_str::<toml::Table>(text);
        read.map_err(|err| anyhow!("configuration: {}", misread(text, &err)))?;
        Ok(Self::of_valid_text(text))
    }

    fn of_valid_text(text: &str) -> Self {
        Self { file: Some((PathBuf::from("configuration"), text.to_owned())), variables: BTreeMap::new() }
    }

    /// The configuration of all layers together. An error begins with the file or the variable that causes it.
    pub(super) fn config(&self) -> Result<Config> {
        self.with(|_| true).map_err(|err| self.explained(err))
    }

    /// The merged layers as a table.
    pub(super) fn table(&self) -> Result<toml::Table> {
        Ok(self.builder(|_| true).build()?.try_deserialize()?)
    }

    /// The configuration before secrets are read from their files.
    pub(super) fn unfilled(&self) -> Result<Config> {
        read(&self.builder(|_| true).build()?).map_err(|err| self.explained(err))
    }

    /// True when the file or the environment sets this key of a section.
    pub(super) fn is_set(&self, section: &str, key: &str) -> bool {
        let in_file = self.file.as_ref().and_then(|(_, text)| text.parse::<toml::Table>().ok());
        let in_file = in_file.is_some_and(|table| {
            table.get(section).and_then(toml::Value::as_table).is_some_and(|section| section.contains_key(key))
        });
        let variable = [PREFIX, section, key].join(SEPARATOR);
        in_file || self.variables.keys().any(|name| name.eq_ignore_ascii_case(&variable))
    }

    fn explained(&self, err: anyhow::Error) -> anyhow::Error {
        let names = || self.variables.keys().map(String::as_str);
        // Without any one of these variables the configuration is valid.
        let decisive: Vec<&str> = names().filter(|name| self.with(|other| other != *name).is_ok()).collect();
        if !decisive.is_empty() {
            return err.context(decisive.join(", "));
        }
        if let Err(err) = self.with(|_| false) {
            return err.context(
                self.file.as_ref().map_or_else(|| "defaults".to_owned(), |(path, _)| path.display().to_string()),
            );
        }
        match names().find_map(|name| Some((name, self.with(|other| other == name).err()?))) {
            Some((name, err)) => err.context(name.to_owned()),
            None => err.context(names().collect::<Vec<_>>().join(", ")),
        }
    }

    fn with(&self, variable: impl Fn(&str) -> bool) -> Result<Config> {
        let mut config = read(&self.builder(variable).build()?)?;
        config.read_secret_files()?;
        config.validate()?;
        Ok(config)
    }

    fn builder(&self, variable: impl Fn(&str) -> bool) -> ConfigBuilder<DefaultState> {
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some((_, text)) = &self.file {
            builder = builder.add_source(File::from_str(text, FileFormat::Toml));
        }
        let chosen = self.variables.iter().filter(|(name, _)| variable(name));
        let chosen = chosen.map(|(name, value)| (name.clone(), value.clone())).collect();
        let environment = Environment::with_prefix(PREFIX).prefix_separator(SEPARATOR).separator(SEPARATOR);
        builder.add_source(environment.try_parsing(true).source(Some(chosen)))
    }
}

/// The environment of this process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment() -> std::env::VarsOs {
    std::env::vars_os()
}

/// Our variables among all variables.
fn variables(all: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>) -> Result<BTreeMap<String, String>> {
    let prefix = format!("{PREFIX}{SEPARATOR}");
    let ours = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(&prefix)))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(anyhow!("{name}: is not Unicode")),
        })
        .collect()
}

/// Reads the merged layers. An error names the key and the expected values.
fn read(merged: &config::Config) -> Result<Config> {
    serde_path_to_error::deserialize(merged.clone()).map_err(|err| {
        let key = err.path().to_string();
        if is_secret(&key) {
            // The message must not show the secret.
            return anyhow!("{key}: is not a text; write it in quotes");
        }
        let reason = plainly(merged, &key).unwrap_or_else(|| err.into_inner().to_string());
        anyhow!("{key}: {reason}")
    })
}

/// Why a text is not valid TOML, with line and column. The line itself is never shown, because it may be a key without
/// a quote.
#[must_use]
pub fn misread(text: &str, err: &toml::de::Error) -> String {
    let place = err.span().and_then(|span| text.get(..span.start)).map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: ")
    });
    format!("{}{}", place.unwrap_or_default(), err.message())
}

/// The message of the TOML reader for the same key, because it lists the valid words. The TOML reader is stricter about
/// numbers in place of texts. So its message is used only when both readers reject the same key.
fn plainly(merged: &config::Config, key: &str) -> Option<String> {
    let table: toml::Table = merged.clone().try_deserialize().ok()?;
    let err = serde_path_to_error::deserialize::<_, Config>(toml::Value::Table(table)).err()?;
    err.path().to_string().starts_with(key).then(|| err.inner().message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_toml_is_told_by_its_place_and_never_shown() {
        let source = "[[source]]\nname = \"a\"\n";
        for (line, place) in [
            ("api_key = \"kros_live_canary", "line 3, column "),
            ("api_key = kros_live_canary", "line 3, column "),
            ("api_key = \"kros_live_canary\"canary", "line 3, column "),
            ("api_key = 'kros_live_canary\napi_secret = 'canary'", "line 3, column "),
            ("\n\napi_key \"kros_live_canary\"", "line 5, column "),
            ("api_key = \"\\kros_live_canary\"", "line 3, column "),
            ("api_key = \"kros_live_canary\"\napi_key = \"kros_live_canary\"", "line 4, column 1: "),
        ] {
            let text = format!("{source}{line}\nbase_url = \"https://a.test\"\n");
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("aftercall.toml");
            std::fs::write(&file, &text).unwrap();
            for said in [Layers::read(Some(&file)).unwrap_err(), Layers::of_text(&text).unwrap_err()] {
                let said = format!("{said:#}");
                assert!(said.contains(place) && !said.contains("canary"), "{line}: {said}");
            }
        }
    }

    #[test]
    fn a_secret_of_the_wrong_kind_is_not_shown_either() {
        let source = |key: &str| {
            format!("[[source]]\nname = \"a\"\ndialect = \"krosai\"\nbase_url = \"https://a.test\"\n{key}\n")
        };
        for key in ["api_key = [\"canary\"]", "api_key = { canary = \"canary\" }"] {
            let said = said(&source(key), &[]);
            assert!(said.contains("source[0].api_key") && !said.contains("canary"), "{said}");
        }
    }

    fn said(file: &str, variables: &[(&str, &str)]) -> String {
        let mut layers = Layers::of_text(file).unwrap();
        layers.variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        format!("{:#}", layers.config().unwrap_err())
    }

    #[test]
    fn a_fault_in_the_environment_names_the_variable() {
        let concurrency = ("AFTERCALL__WORKER__CONCURRENCY", "many");
        for (file, variables, named) in [
            ("", &[concurrency][..], "AFTERCALL__WORKER__CONCURRENCY: worker.concurrency: "),
            ("", &[("AFTERCALL__FOO__BAR", "1")], "AFTERCALL__FOO__BAR: foo: unknown field `foo`"),
            ("", &[("AFTERCALL__LOG__LEVEL", "info"), concurrency], "AFTERCALL__WORKER__CONCURRENCY: "),
            (
                "",
                &[("AFTERCALL__WORKER__CONCURRENCY", "0")],
                "AFTERCALL__WORKER__CONCURRENCY: worker.concurrency: must",
            ),
            (
                "[worker]\nconcurrency = 0",
                &[("AFTERCALL__LOG__LEVEL", "info")],
                "configuration: worker.concurrency: must",
            ),
            ("", &[("AFTERCALL__FOO__BAR", "1"), concurrency], "AFTERCALL__FOO__BAR: foo: "),
            (
                "",
                &[("AFTERCALL__WORKER__HEARTBEAT", "7s"), ("AFTERCALL__WORKER__SILENT_AFTER", "13s")],
                "AFTERCALL__WORKER__HEARTBEAT, AFTERCALL__WORKER__SILENT_AFTER: worker.silent_after: ",
            ),
        ] {
            let said = said(file, variables);
            assert!(said.starts_with(named), "{variables:?}: {said}");
        }
    }

    #[test]
    fn a_word_that_is_none_of_those_allowed_is_answered_with_those() {
        let source = "[[source]]\nname = \"a\"\nbase_url = \"https://a.test\"\napi_key = \"k\"\n";
        let dialect = |word: &str| {
            format!("{source}dialect = \"krosai\"\n{source}dialect = \"{word}\"").replacen("\"a\"", "\"b\"", 1)
        };
        let zudu = dialect("zudu").replace("\"k\"", "\"k\"\napi_secret = \"s\"");
        Layers::of_text(&zudu).unwrap().config().unwrap();
        let text = said(&dialect("foo"), &[]);
        assert!(text.starts_with("configuration: source[1].dialect: "), "{text}");
        for word in ["foo", "krosai", "zudu", "atoms"] {
            assert!(text.contains(word), "{text}");
        }
        let text = said("[objects]\nkind = \"disk\"", &[]);
        assert!(text.starts_with("configuration: objects.kind: ") && text.contains("`dir` or `s3`"), "{text}");
        let text = said("", &[("AFTERCALL__OBJECTS__KIND", "disk")]);
        assert!(text.starts_with("AFTERCALL__OBJECTS__KIND: objects.kind: ") && text.contains("`s3`"), "{text}");
    }

    #[test]
    fn a_number_may_stand_for_a_text_in_the_environment() {
        let mut layers = Layers::of_text("").unwrap();
        layers.variables.insert("AFTERCALL__OBJECTS__ACCESS_KEY_ID".to_owned(), "12345".to_owned());
        assert_eq!(layers.config().unwrap().objects.access_key_id, "12345");
    }
}
