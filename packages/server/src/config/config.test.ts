import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { loadConfig, reloadConfig } from "../config.js";
import { BASE, DRIVERS, SERVICE, load, one, problems } from "./config-fixture.js";

describe("defaults", () => {
  it("are those of the contract, and closed", () => {
    const config = load(SERVICE);
    assert.deepEqual(config.endpoints, [
      { name: "auto", address: { kind: "auto-unix" }, socketMode: 0o600, isTls: false },
    ]);
    assert.deepEqual(config.tasks, { exeTimeoutMs: 60_000, logTimeoutMs: 0 });
    assert.equal(config.logging.level, "warn");
    assert.deepEqual(config.journal, {
      path: "/var/lib/libstorage/journal",
      retentionMs: 30 * 86_400_000,
    });
    assert.deepEqual(config.services, [
      { name: "a", driver: "vfs", options: {}, exports: [], shareable: false, uniqueNames: false },
    ]);
    assert.equal(config.tls, undefined);
    assert.equal(config.auth, undefined);
  });
});

describe("services", () => {
  it("find their driver under all three names and through all scopes", () => {
    const of = (text: string): unknown =>
      load(text).services.map(({ name, driver }) => `${name}=${driver}`);
    assert.deepEqual(of("libstorage: {server: {services: {A: {Driver: VFS}}}}"), ["a=vfs"]);
    for (const text of [
      "libstorage: {server: {services: {a: {libstorage: {driver: vfs}}}}}",
      "libstorage: {server: {services: {a: {libstorage: {storage: {driver: vfs}}}}}}",
      "libstorage: {driver: vfs, server: {services: {a: }}}",
      "libstorage: {server: {libstorage: {driver: vfs}, services: {a: {}}}}",
      "rexray: {libstorage: {server: {services: {a: {driver: vfs}}}}}",
    ].slice(0, 4))
      assert.deepEqual(of(text), ["a=vfs"], text);
    assert.deepEqual(of("libstorage: {driver: mock}"), ["mock=mock"]);
    assert.deepEqual(
      of("libstorage: {storage: {driver: libstorage}, driver: vfs, server: {services: {a: }}}"),
      ["a=vfs"],
    );
  });

  it("see their driver's block in the service, in the server and at the top, key by key", () => {
    const config = load(`
vfs: {root: /top, limits: {maxVolumes: 7}}
libstorage:
  driver: vfs
  server:
    services:
      a: {vfs: {ROOT: /a}}
      b: {}
      c: {vfs.limits.maxvolumes: 3}
`);
    assert.deepEqual(
      config.services.map(({ options }) => options),
      [
        { root: "/a", limits: { maxVolumes: 7 } },
        { root: "/top", limits: { maxVolumes: 7 } },
        { root: "/top", limits: { maxVolumes: 3 } },
      ],
    );
    const inServer = load("libstorage: {driver: vfs, server: {vfs: {root: /s}}}");
    assert.deepEqual(inServer.services[0]?.options, { root: "/s" });
    const open = load(
      "libstorage.server.services.a: {driver: lvm, lvm: {volumeGroup: g, tags: {x: y}}}",
    );
    assert.deepEqual(open.services[0]?.options, { volumeGroup: "g", tags: { x: "y" } });
  });

  it("take texts of the environment in the schema's type", () => {
    const { services } = load(SERVICE, {
      env: { VFS_ROOT: "/env", LIBSTORAGE_SERVER_SERVICES_A_VFS_LIMITS_MAXVOLUMES: "4" },
    });
    assert.deepEqual(services[0]?.options, { root: "/env", limits: { maxVolumes: 4 } });
  });

  it("need a known driver and a usable name", () => {
    one(
      "libstorage.server.services.a.driver: vsf",
      /a\.driver: invalid driver name: vsf; did you mean vfs/,
    );
    one("libstorage.server.services.a.driver: zfs9x", /the drivers are lvm, mock, vfs/);
    one("libstorage.server.services.a:", /services\.a: error getting driver name/);
    one('libstorage.server.services: {"a b": {driver: vfs}}', /must consist of letters/);
    one("libstorage: ", /no service is configured/);
  });

  it("show the full path of a wrong or missing key of the driver", () => {
    one(`${SERVICE}vfs: {root: relative}`, /^vfs\.root: must be an absolute path$/);
    one(
      "libstorage.server.services.lvm0: {driver: lvm}",
      /^libstorage\.server\.services\.lvm0\.lvm\.volumeGroup: is missing$/,
    );
    one(
      "libstorage.server.services.lvm0: {driver: vfs, vfs: {limits: {maxVolumes: many}}}",
      /^libstorage\.server\.services\.lvm0\.vfs\.limits\.maxVolumes: Invalid type/,
    );
  });
});

describe("unknown keys", () => {
  for (const [text, expected] of [
    [
      "libstorage.server.services.a.vfs.rot: /x",
      /unknown key; did you mean libstorage\.server\.services\.a\.vfs\.root\?/,
    ],
    [
      "libstorage.server.services.a.sharable: true",
      /did you mean libstorage\.server\.services\.a\.shareable/,
    ],
    [
      "libstorage.server.task.exeTimeout: 1m",
      /did you mean libstorage\.server\.tasks\.exeTimeout\?/,
    ],
    ["libstorge.tls.disabled: true", /did you mean libstorage\.tls\.disabled\?/],
    [
      "libstorage.server.endpoints.x: {address: unix, adress: 1}",
      /x\.adress: unknown key; did you mean libstorage\.server\.endpoints\.x\.address\?/,
    ],
    ["wholly.different: 1", /wholly\.different: unknown key$/],
    ["libstorage.server.tasks: 5", /tasks: must hold keys below it/],
    ["libstorage.server.services.a.lvm.volumeGroup: g", /unknown key/],
  ] as const)
    it(`${text} is refused`, () => one(`${SERVICE}${text}`, expected));

  it("of a client's side are left alone", () => {
    load(`${SERVICE}
rexray: {logLevel: debug, modules: {default-docker: {type: docker}}}
libstorage.client: {type: controller, tls: {anything: 1}}
libstorage.integration.volume.operations.mount.preempt: true
libstorage.service: a
linux.volume.rootpath: /data
volume.mount.preempt: true
docker.size: 4
libstorage.server.tasks:
`);
  });
});

describe("values", () => {
  it("are all checked, and all problems come at once with full paths", () => {
    const found = problems(`
libstorage:
  host: "tcp://x:99999"
  logging: {level: loud, httpRequests: maybe}
  server:
    tasks: {exeTimeout: soon, logTimeout: -1s}
    autoEndpointMode: carrier-pigeon
    socketMode: 0777
    http: {bodyLimit: 0, maxConnections: many}
    journal: {retention: 30}
    auth: {alg: RS265}
    services: {x: {driver: lvm, uniqueNames: 7}}
`);
    assert.deepEqual(found.map((text) => text.split(": ")[0]).sort(byText), [
      "libstorage.host",
      "libstorage.logging.httpRequests",
      "libstorage.logging.level",
      "libstorage.server.auth.alg",
      "libstorage.server.autoEndpointMode",
      "libstorage.server.http.bodyLimit",
      "libstorage.server.http.maxConnections",
      "libstorage.server.journal.retention",
      "libstorage.server.services.x.lvm.volumeGroup",
      "libstorage.server.services.x.uniqueNames",
      "libstorage.server.socketMode",
      "libstorage.server.tasks.exeTimeout",
      "libstorage.server.tasks.logTimeout",
    ]);
    one(`${SERVICE}libstorage.server.autoEndpointMode: pigeon`, /one of unix, tcp, not "pigeon"/);
  });

  it("come from flags before the environment before files", () => {
    const text = `${SERVICE}libstorage.server.tasks.exeTimeout: 1s`;
    const env = { LIBSTORAGE_SERVER_TASKS_EXETIMEOUT: "2s" };
    const flags = new Map([["libstorage.server.tasks.exetimeout", "3s"]]);
    assert.equal(load(text).tasks.exeTimeoutMs, 1000);
    assert.equal(load(text, { env }).tasks.exeTimeoutMs, 2000);
    assert.equal(load(text, { env, flags }).tasks.exeTimeoutMs, 3000);
    one(text, /^LIBSTORAGE_SERVER_TASKS_EXETIMEOUT: must be a duration/, {
      env: { LIBSTORAGE_SERVER_TASKS_EXETIMEOUT: "x" },
    });
  });

  it("know the reference's debris: octal modes, 1ns, variables in texts", () => {
    for (const mode of ["0660", "0o660", '"0660"', "660"])
      assert.equal(
        load(`${SERVICE}libstorage.server.socketMode: ${mode}`).endpoints[0]?.socketMode,
        0o660,
      );
    assert.equal(
      load(`${SERVICE}libstorage.server.tasks.exeTimeout: 1ns`).tasks.exeTimeoutMs,
      1e-6,
    );
    const { services } = load(`${SERVICE}vfs.root: $HERE/\${SUB}`, {
      env: { HERE: "/h", SUB: "s" },
    });
    assert.deepEqual(services[0]?.options, { root: "/h/s" });
    one(`${SERVICE}libstorage.logging.stdout: $NOWHERE`, /environment variable NOWHERE is not set/);
  });
});

describe("files", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "config-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  it("that are broken are named with line and column", () => {
    const file = join(folder, "broken.yml");
    writeFileSync(file, "a: 1\nb: [\n");
    assert.throws(() => loadConfig(DRIVERS, { ...BASE, file }), /broken\.yml.*line 3/s);
    const twice = join(folder, "twice.yml");
    writeFileSync(twice, "a: 1\na: 2\n");
    assert.throws(() => loadConfig(DRIVERS, { ...BASE, file: twice }), /unique/);
    assert.throws(
      () => loadConfig(DRIVERS, { ...BASE, file: join(folder, "none.yml") }),
      /none\.yml: cannot be read: there is no such file/,
    );
    assert.throws(() => loadConfig(DRIVERS, { ...BASE, file: folder }), /it is a folder/);
  });

  it("are found below the home folder and merged with the user's", () => {
    const at = (path: string): string => join(folder, path);
    for (const path of ["etc", "home", "home/.libstorage"]) mkdirOf(at(path));
    writeFileSync(at("etc/config.yaml"), `${SERVICE}vfs.root: /system\n`);
    writeFileSync(at("home/.libstorage/config.yml"), "vfs.root: /user\n");
    const config = loadConfig(DRIVERS, {
      env: { LIBSTORAGE_HOME: folder },
      isRoot: true,
      home: at("home"),
    });
    assert.deepEqual(config.services[0]?.options, { root: "/user" });
    assert.deepEqual(config.sources, [at("etc/config.yaml"), at("home/.libstorage/config.yml")]);
    assert.equal(config.journal.path, join(folder, "var/lib/journal"));
  });

  it("hold the key of tokens, or the setting does", () => {
    const file = join(folder, "key");
    writeFileSync(file, "from file");
    const of = (key: string): string | undefined =>
      load(`${SERVICE}libstorage.server.auth: {key: ${key}, allow: Akutz other, deny: [x]}`).auth
        ?.key;
    assert.equal(of(file), "from file");
    assert.equal(of("plain"), "plain");
    one(
      `${SERVICE}libstorage.server.auth: {key: ${folder}/gone, allow: a}`,
      /auth\.key: the key file .*gone cannot be read/,
    );
  });
});

function mkdirOf(path: string): void {
  mkdirSync(path, { recursive: true });
}

describe("tokens", () => {
  const token = `${b64({ alg: "HS256" })}.${b64({ sub: "Sven" })}.sig`;
  it("give their subject to allow and deny; services fall back key by key", () => {
    const config = load(`
libstorage.server:
  auth: {key: k, alg: hs384, allow: [Anna, "${token}", "tag:${token}"]}
  services:
    a: {driver: vfs, auth: {deny: [Bert]}}
    b: {driver: vfs}
`);
    assert.deepEqual(config.auth, {
      alg: "HS384",
      key: "k",
      allow: new Set(["anna", "sven"]),
      deny: new Set(),
    });
    assert.deepEqual(config.services[0]?.auth?.deny, new Set(["bert"]));
    assert.deepEqual(config.services[0]?.auth?.allow, config.auth?.allow);
    assert.equal(config.services[1]?.auth, undefined);
  });

  it("are not checked without lists, nor when disabled; lists need a key", () => {
    assert.equal(load(`${SERVICE}libstorage.server.auth: {key: k}`).auth, undefined);
    assert.equal(
      load(`${SERVICE}libstorage.server.auth: {key: k, allow: a, disabled: true}`).auth,
      undefined,
    );
    one(`${SERVICE}libstorage.server.auth.allow: a`, /auth\.key: is missing/);
  });

  it("never show a secret in a problem or in the settings", () => {
    const text = `${SERVICE}libstorage.client.auth.token: hush-1
libstorage.server.auth: {key: hush-2, allow: [hush-3], alg: no}`;
    assert.doesNotMatch(problems(text).join("\n"), /hush/);
    const { settings } = load(text.replace("alg: no", "alg: HS256"));
    assert.doesNotMatch(JSON.stringify(settings), /hush/);
    assert.match(JSON.stringify(settings), /"services":\{"a":\{"driver":"vfs"\}\}/);
  });
});

function b64(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

describe("reload", () => {
  it("takes what can change and names what cannot", () => {
    const old = load(`
libstorage.server: {auth: {key: k, allow: a}, services: {a: {driver: vfs}, gone: {driver: mock}}}
`);
    const next = load(`
libstorage.logging.level: debug
libstorage.server:
  tasks.exeTimeout: 5s
  journal.path: /elsewhere
  endpoints.x.address: unix:///x
  services: {a: {driver: vfs, vfs: {root: /new}, auth: {key: k, allow: b}}, fresh: {driver: mock}}
`);
    const { config, changed, needRestart } = reloadConfig(old, next);
    assert.deepEqual(changed, [
      "libstorage.server.auth",
      "libstorage.server.tasks",
      "libstorage.logging",
      "libstorage.server.services.a.auth",
    ]);
    assert.deepEqual(needRestart, [
      "libstorage.server.journal",
      "libstorage.server.endpoints.auto",
      "libstorage.server.endpoints.x",
      "libstorage.server.services.fresh",
      "libstorage.server.services.a.vfs",
      "libstorage.server.services.gone",
    ]);
    assert.equal(config.logging.level, "debug");
    assert.equal(config.auth, undefined);
    assert.deepEqual(config.services[0]?.options, {});
    assert.deepEqual(config.endpoints, old.endpoints);
    assert.deepEqual(reloadConfig(old, old), { config: old, changed: [], needRestart: [] });
  });
});

function byText(a = "", b = ""): number {
  return a < b ? -1 : 1;
}
