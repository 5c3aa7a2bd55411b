import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { redactConfig, redactEnv } from "./redact.js";

const JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";

describe("redaction", () => {
  it("takes secrets out at any depth, and leaves what is none", () => {
    const shown = redactConfig({
      Auth: { key: "k", KeyFile: "/etc/key.pem", alg: "HS256", allow: ["a", `tag:${JWT}`] },
      iscsi: { chapSecret: "c", chapSecretFile: "/etc/chap", password: "" },
      list: [{ adminToken: "t" }],
      http: { disableKeepAlive: false },
      url: "https://ann:sesame@example.org/",
    });
    assert.deepEqual(shown, {
      auth: {
        alg: "HS256",
        allow: ["a", "tag:REDACTED"],
        key: "REDACTED",
        keyfile: "/etc/key.pem",
      },
      http: { disablekeepalive: false },
      iscsi: { chapsecret: "REDACTED", chapsecretfile: "/etc/chap", password: "" },
      list: [{ admintoken: "REDACTED" }],
      url: "https://ann:REDACTED@example.org/",
    });
  });
  it("hides environment values by name and tokens by form", () => {
    const env = {
      PATH: "/bin",
      DB_PASSWORD: "p",
      API_KEY: "k",
      NOTE: `use ${JWT}`,
      EMPTY_TOKEN: "",
    };
    assert.deepEqual(redactEnv(env), [
      "API_KEY=REDACTED",
      "DB_PASSWORD=REDACTED",
      "EMPTY_TOKEN=",
      "NOTE=use REDACTED",
      "PATH=/bin",
    ]);
  });
});
