//! Warnings of `check` about a readable configuration: settings that are ignored, and missing files.

use std::path::Path;

use anyhow::Result;

use super::Config;
use super::layers::Layers;

/// One warning. Its text begins with the setting's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// The configuration works, but probably not as intended.
    Doubtful(String),
    /// A worker would not start.
    Unusable(String),
}

impl Config {
    /// The warnings about the configuration that [`Config::load`] would read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn remarks(file: Option<&Path>) -> Result<Vec<Remark>> {
        Layers::read(file)?.remarks()
    }
}

impl Layers {
    pub(super) fn remarks(&self) -> Result<Vec<Remark>> {
        let config = self.unfilled()?;
        let mut all = Vec::new();
        let mut twice = |(place, key): (&str, &str), value: bool, file: bool, used: &str| {
            if value && file {
                let said = format!("{place}{key} and {key}_file are both set: {used} is used, the other is ignored");
                all.push(Remark::Doubtful(said));
            }
        };
        let set = |key: &str| self.is_set("store", key);
        twice(("store.", "url"), set("url"), config.store.url_file.is_some(), "the file");
        let objects = &config.objects;
        let value = objects.secret_access_key.is_some();
        twice(("objects.", "secret_access_key"), value, objects.secret_access_key_file.is_some(), "the value");
        for source in &config.source {
            let place = format!("source `{}`: ", source.name);
            for (key, value, file) in [
                ("api_key", source.api_key.is_some(), source.api_key_file.is_some()),
                ("api_secret", source.api_secret.is_some(), source.api_secret_file.is_some()),
                ("webhook_secret", source.webhook_secret.is_some(), source.webhook_secret_file.is_some()),
            ] {
                twice((&place, key), value, file, "the value");
            }
            for agent in &source.agent {
                twice((&place, "agent.text"), agent.text.is_some(), agent.text_file.is_some(), "the value");
            }
        }
        for engine in &config.engine {
            let place = format!("engine `{}`: ", engine.name);
            twice((&place, "api_key"), engine.api_key.is_some(), engine.api_key_file.is_some(), "the value");
        }
        let schedule = &config.schedule.file;
        if !schedule.is_empty()
            && let Err(err) = std::fs::read_to_string(schedule)
        {
            all.push(Remark::Unusable(format!("schedule.file: cannot read {schedule}: {err}")));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks(toml: &str) -> Vec<Remark> {
        Layers::of_text(toml).unwrap().remarks().unwrap()
    }

    fn doubtful(said: &str) -> Remark {
        Remark::Doubtful(said.to_owned())
    }

    #[test]
    fn a_secret_that_is_given_twice_is_named() {
        assert!(remarks("").is_empty());
        assert!(remarks("[store]\nurl_file = \"/nowhere\"").is_empty(), "the default is nobody's setting");
        let source = "[[source]]\nname = \"k\"\ndialect = \"krosai\"\nbase_url = \"https://k.test\"\n";
        let key = "api_key = \"k\"\napi_key_file = \"/run/secrets/k\"\n";
        let said = "source `k`: api_key and api_key_file are both set: the value is used, the other is ignored";
        assert_eq!(remarks(&format!("{source}{key}")), [doubtful(said)]);
        assert!(remarks(&format!("{source}api_key_file = \"/run/secrets/k\"")).is_empty());
        let store = "[store]\nurl = \"sqlite://a.db\"\nurl_file = \"/run/secrets/url\"";
        let said = "store.url and url_file are both set: the file is used, the other is ignored";
        assert_eq!(remarks(store), [doubtful(said)]);
        let engine = "[[engine]]\nname = \"e\"\nkind = \"openai\"\nbase_url = \"https://e.test\"\nmodel = \"m\"\n\
                      organizations = [\"o\"]\n";
        assert_eq!(remarks(&format!("{engine}{key}")).len(), 1);
    }

    #[test]
    fn a_schedule_file_that_is_not_there_is_named() {
        let all = remarks("[schedule]\nfile = \"/nowhere/schedule.toml\"");
        let [Remark::Unusable(said)] = all.as_slice() else { panic!("{all:?}") };
        assert!(said.starts_with("schedule.file: cannot read /nowhere/schedule.toml"), "{said}");
    }
}
