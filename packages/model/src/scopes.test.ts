import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  ConfigTree,
  ScopedConfig,
  booleanOf,
  environmentLayer,
  expandTree,
  expandVariables,
  flagOfKey,
  placesOf,
  variableOfKey,
} from "./scopes.js";
import type { ConfigProblem } from "./scopes.js";

describe("places of a key", () => {
  it("are those of section 15.1, in its order", () => {
    const scopes = ["rexray", "libstorage.server", "libstorage.server.services.N"];
    assert.deepEqual(placesOf(scopes, "K"), [
      "rexray.libstorage.server.libstorage.server.services.N.K",
      "libstorage.server.libstorage.server.services.N.K",
      "rexray.libstorage.server.services.N.K",
      "libstorage.server.services.N.K",
      "rexray.libstorage.server.K",
      "libstorage.server.K",
      "rexray.K",
      "K",
    ]);
  });
});

describe("a configuration tree", () => {
  const tree = new ConfigTree({
    libStorage: {
      Server: { services: { VFS2: null, vfs: { vfs: { root: "/a" } } } },
      "tls.disabled": true,
    },
    vfs: { ROOT: "/top" },
  });

  it("compares keys without case and answers as spelled", () => {
    assert.deepEqual(tree.find("libstorage.SERVER.services.vfs.VFS.root"), {
      path: "libStorage.Server.services.vfs.vfs.root",
      value: "/a",
    });
    assert.equal(tree.find("libstorage.tls.disabled")?.value, true);
    assert.deepEqual(tree.names("libstorage.server.services"), ["VFS2", "vfs"]);
    assert.ok(tree.has("libstorage.server.services.vfs2"));
    assert.equal(tree.find("libstorage.server.services.vfs2"), undefined);
  });

  it("refuses a key that stands there twice, or as value and as map", () => {
    assert.match(new ConfigTree({ a: 1, A: 2 }).problems[0]?.message ?? "", /twice.*"a"/);
    assert.match(new ConfigTree({ a: 1, "a.b": 2 }).problems[0]?.message ?? "", /value of its own/);
    assert.match(new ConfigTree({ "a..b": 2 }).problems[0]?.message ?? "", /empty/);
    assert.match(new ConfigTree(["a"]).problems[0]?.message ?? "", /must be a map/);
    assert.deepEqual(new ConfigTree(null).problems, []);
  });

  it("merges another over itself", () => {
    const merged = tree.merge(new ConfigTree({ VFS: { root: "/new", x: [1] }, libstorage: null }));
    assert.equal(merged.find("vfs.root")?.value, "/new");
    assert.deepEqual(merged.find("vfs.x")?.value, [1]);
    assert.equal(merged.find("libstorage.tls.disabled")?.value, true);
    assert.equal(tree.find("vfs.root")?.value, "/top");
  });

  it("is not fooled by names of Object's own", () => {
    const odd = new ConfigTree(JSON.parse('{"__proto__": {"a": 1}, "constructor": 2}'));
    assert.equal(odd.find("__proto__.a")?.value, 1);
    assert.equal(odd.find("toString"), undefined);
  });
});

describe("lookup", () => {
  const file = new ConfigTree({
    vfs: { root: "/top" },
    libstorage: {
      server: { vfs: { root: "/server" }, services: { a: { vfs: { root: "/a" } }, b: {} } },
    },
  });
  const env = { LIBSTORAGE_SERVER_VFS_ROOT: "/env", DRIVER: "evil", EMPTY_KEY: "" };
  const server = new ScopedConfig([environmentLayer(env), file], ["libstorage.server"]);

  it("takes the innermost place, and there the strongest layer", () => {
    assert.equal(server.within("libstorage.server.services.a").find("vfs.root")?.value, "/a");
    assert.deepEqual(server.within("libstorage.server.services.b").find("vfs.root"), {
      path: "LIBSTORAGE_SERVER_VFS_ROOT",
      value: "/env",
    });
    assert.equal(new ScopedConfig([file]).find("vfs.root")?.value, "/top");
  });

  it("takes no variable for a key of one part, nor an empty one", () => {
    assert.equal(server.find("driver"), undefined);
    assert.equal(server.find("empty.key"), undefined);
  });
});

describe("texts", () => {
  it("names variables and flags after keys", () => {
    assert.equal(
      variableOfKey("libstorage.tls.clientCertRequired"),
      "LIBSTORAGE_TLS_CLIENTCERTREQUIRED",
    );
    assert.equal(flagOfKey("libstorage.tls.disabled"), "libstorageTlsDisabled");
  });

  it("expands variables and says which are missing", () => {
    assert.deepEqual(expandVariables("$A/${B}x$$C$D-$", { A: "1", B: "2" }), {
      text: "1/2x$C-$",
      missing: ["D"],
    });
    const problems: ConfigProblem[] = [];
    assert.deepEqual(expandTree({ $A: ["$A", 3, { b: "$NO" }] }, { A: "1" }, problems), {
      $A: ["1", 3, { b: "$NO" }],
    });
    assert.deepEqual(
      problems.map(({ path }) => path),
      ["$A.2.b"],
    );
  });

  it("reads booleans in every spelling", () => {
    assert.deepEqual(["true", "T", 1, true, "on"].map(booleanOf), Array(5).fill(true));
    assert.deepEqual(["false", "F", 0, false, "no"].map(booleanOf), Array(5).fill(false));
    assert.deepEqual(["", "maybe", 2, null, []].map(booleanOf), Array(5).fill(undefined));
  });
});
