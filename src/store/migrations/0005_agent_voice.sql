-- What the voices of synthetic agents sound like, a row for each call that taught it: it leaves with the call, or with
-- the agent. Nothing of a caller or of a person is ever here.
CREATE TABLE agent_voice (
    call_uid  TEXT   NOT NULL PRIMARY KEY REFERENCES call_record (uid),
    source    TEXT   NOT NULL,
    agent_id  TEXT   NOT NULL, -- the platform's id
    version   BIGINT NOT NULL, -- of the figures: those of another are never compared
    speech_ms BIGINT NOT NULL,
    at_json   TEXT   NOT NULL,
    learnt_at BIGINT NOT NULL
);
CREATE INDEX agent_voice_agent ON agent_voice (source, agent_id, learnt_at);
