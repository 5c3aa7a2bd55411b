import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { COMMAND_NAMES } from "./command-names.js";
import { BIN, ended, makeFolder, run, start, startServer } from "./fixture.js";
import type { Ran, TestServer } from "./fixture.js";
import { cannotMount } from "./host-fixture.js";

describe("the command line", () => {
  let server: TestServer;
  let home: string;
  let env: NodeJS.ProcessEnv;

  async function libstorage(...args: string[]): Promise<Ran> {
    return run(BIN, args, env);
  }
  /** What it prints when all goes well, with times replaced. */
  async function out(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await libstorage(...args);
    assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
    return stdout.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "TIME");
  }
  async function failure(...args: string[]): Promise<Ran> {
    const ran = await libstorage(...args);
    assert.notEqual(ran.code, 0, `${args.join(" ")} succeeded: ${ran.stdout}`);
    assert.equal(ran.stdout, "");
    assert.ok(!/\n\s+at /.test(ran.stderr), `a stack: ${ran.stderr}`);
    return ran;
  }

  before(async () => {
    server = await startServer();
    home = await makeFolder();
    env = { LIBSTORAGE_HOST: server.host, LIBSTORAGE_HOME: home, VFS_INSTANCEID_NAME: "host-a" };
  });
  after(async () => {
    await server.close();
    await rm(home, { recursive: true });
  });

  it("copies a volume into another service", async () => {
    const folder = await makeFolder();
    const second = `      archive: {driver: vfs, vfs: {root: ${folder}}}`;
    const own = await startServer({ config: second });
    const earlier = env;
    env = { ...env, LIBSTORAGE_HOST: own.host };
    try {
      await out("volume", "create", "web", "-s", "vfs", "--opt", "owner=me");
      await writeFile(join(own.vfsRoot, "vol/vfs-000/file"), "content");
      assert.match(
        await out("volume", "copy", "web", "web", "--to", "archive"),
        /vfs-000 +web +1 GiB +available +archive +-\n/,
      );
      assert.equal(await readFile(join(folder, "vol/vfs-000/file"), "utf8"), "content");
      const copy = ["volume", "copy", "vfs-000", "-s", "vfs"];
      const taken = await failure(...copy, "web", "--to", "archive");
      assert.match(taken.stderr, /service archive has a volume called web already/);
      const other = await failure(...copy, "there", "--to", "mock");
      assert.match(other.stderr, /mock driver of the target takes no volumes of service vfs/);
      assert.match((await failure(...copy, "x", "--to", "no")).stderr, /service no not found/);
      assert.match(await out(...copy, "web2", "--to", "vfs"), /vfs-001 +web2 .* vfs +-\n/);
    } finally {
      env = earlier;
      await own.close();
      await rm(folder, { recursive: true });
    }
  });

  it("brings a volume back to a snapshot of its own, and changes its record", async () => {
    const own = await startServer();
    const earlier = env;
    env = { ...env, LIBSTORAGE_HOST: own.host };
    try {
      for (const name of ["web", "db"]) {
        await out("volume", "create", name, "-s", "vfs");
        await writeFile(join(own.vfsRoot, `vol/vfs-00${name === "web" ? 0 : 1}/file`), "before");
        await out("volume", "snapshot", name, "-s", "vfs", "nightly");
      }
      const file = join(own.vfsRoot, "vol/vfs-000/file");
      await writeFile(file, "after");
      const revert = ["volume", "revert", "web", "-s", "vfs"];
      assert.match(await out(...revert, "nightly"), /vfs-000 +web +1 GiB/);
      assert.equal(await readFile(file, "utf8"), "before");
      assert.match((await failure(...revert, "vfs-001-001")).stderr, /one of volume vfs-001/);
      assert.match((await failure(...revert, "none")).stderr, /snapshot none not found/);
      const update = ["volume", "update", "-s", "vfs"];
      assert.match(await out(...update, "web", "--name", "www", "--field", "a=b"), /vfs-000 +www/);
      assert.match(await out("volume", "inspect", "www", "--json"), /"a": ?"b"/);
      await out(...update, "www", "--unset", "a");
      assert.doesNotMatch(await out("volume", "inspect", "www", "--json"), /"a":/);
      const fixed = await failure(...update, "www", "--iops", "5");
      assert.match(fixed.stderr, /vfs driver cannot change iops .* name, fields/);
      assert.equal((await failure(...update, "www")).code, 2);
    } finally {
      env = earlier;
      await own.close();
    }
  });

  it("takes volumes and snapshots through their lives, in tables", async () => {
    const head = "ID       NAME  SIZE   STATE      SERVICE  HOLDER\n";
    assert.equal(
      await out("volume", "create", "web", "--size", "2G", "-s", "vfs", "--opt", "owner=me"),
      `${head}vfs-000  web   2 GiB  available  vfs      -\n`,
    );
    assert.equal(
      await out("volume", "attach", "web"),
      `ID       NAME  SIZE   STATE     SERVICE  HOLDER  DEVICE
vfs-000  web   2 GiB  attached  vfs      host-a  ${server.vfsRoot}/vol/vfs-000\n`,
    );
    assert.equal(
      await out("--service", "vfs", "volume", "ls"),
      `ID       NAME  SIZE   STATE     SERVICE  HOLDER
vfs-000  web   2 GiB  attached  vfs      host-a\n`,
    );
    env["VFS_INSTANCEID_NAME"] = "host-b";
    assert.match(await out("volume", "ls"), /vfs-000 +web +2 GiB +in use +vfs +host-a\n/);
    assert.equal(
      await out("volume", "ls", "-s", "vfs", "--attached"),
      "ID  NAME  SIZE  STATE  SERVICE  HOLDER\n",
    );
    env["VFS_INSTANCEID_NAME"] = "host-a";
    assert.equal(
      await out("volume", "detach", "vfs-000"),
      `${head}vfs-000  web   2 GiB  available  vfs      -\n`,
    );
    assert.equal(
      await out("volume", "inspect", "web"),
      `id:       vfs-000
name:     web
service:  vfs
size:     2 GiB
state:    available
fields:   owner=me\n`,
    );
    assert.equal(
      await out("volume", "snapshot", "web", "monday"),
      `ID           NAME    VOLUME   SIZE   CREATED               SERVICE
vfs-000-000  monday  vfs-000  2 GiB  TIME  vfs\n`,
    );
    assert.match(await out("snapshot", "inspect", "monday"), /^id: +vfs-000-000\nname: +monday\n/);
    assert.match(await out("snapshot", "ls", "--volume", "web"), /vfs-000-000 +monday +vfs-000/);
    assert.match(
      await out("snapshot", "create-volume", "monday", "web2"),
      /vfs-001 +web2 +2 GiB +available +vfs +-\n/,
    );
    assert.match(await out("snapshot", "copy", "monday", "tuesday"), /tuesday +vfs-000/);
    assert.match(await out("volume", "copy", "web", "web3"), /vfs-002 +web3/);
    assert.match(await out("volume", "expand", "web3", "--size", "5"), /vfs-002 +web3 +5 GiB/);
    assert.equal(await out("snapshot", "rm", "monday", "tuesday"), "vfs-000-000\nvfs-000-001\n");
    assert.equal(await out("volume", "rm", "web2", "web3"), "vfs-001\nvfs-002\n");
    assert.equal(await out("volume", "rm", "web"), "vfs-000\n");
  });

  it("shows services, health, versions and tasks", async () => {
    assert.equal(
      await out("service", "ls"),
      "NAME  DRIVER  TYPE\nmock  mock    block\nvfs   vfs     object\n",
    );
    assert.match(await out("service", "inspect", "vfs"), /this host: +host-a\n/);
    assert.match(await out("health"), /^status +ok\nservice vfs +ready, \d+ volumes/);
    assert.match(await out("version"), /^client +0\.1\.0\nserver +0\.1\.0 \(unix:/);
    assert.equal(await out("version", "--client"), "0.1.0\n");
    assert.match(await out("task", "ls"), /^ID +OPERATION +STATE/);
    const { code, stderr } = await failure("task", "inspect", "999");
    assert.equal(code, 1);
    assert.match(stderr, /task 999 not found/);
  });

  it("asks the server once for a list whose service is named", async () => {
    server.requests.length = 0;
    await out("volume", "ls", "-s", "vfs");
    assert.deepEqual(
      server.requests.map(({ line }) => line),
      ["GET /volumes/vfs?attachments=1"],
    );
  });

  it("prints the API's objects with --json, errors too", async () => {
    const made = JSON.parse(await out("volume", "create", "j", "-s", "vfs", "--json")) as {
      id: string;
    };
    const all = JSON.parse(await out("volume", "ls", "--json")) as Record<string, object>;
    assert.deepEqual(Object.keys(all), ["mock", "vfs"]);
    assert.ok(made.id in (all["vfs"] ?? {}));
    assert.deepEqual(JSON.parse(await out("volume", "rm", "j", "--json")), [
      { service: "vfs", id: made.id },
    ]);
    const { stderr } = await failure("volume", "inspect", "j", "--json");
    assert.equal((JSON.parse(stderr) as { error: { code: string } }).error.code, "not-found");
  });

  it("refuses names that are not unique, and has no half names", async () => {
    await out("volume", "create", "same", "-s", "vfs");
    const taken = await failure("volume", "create", "same", "-s", "vfs");
    assert.match(taken.stderr, /has a volume called same already \(vfs-\d+\)/);
    await out("volume", "create", "same", "-s", "vfs", "--allow-duplicate");
    const { code, stderr } = await failure("volume", "rm", "same");
    assert.equal(code, 1);
    assert.match(stderr, /2 volumes are called same: (vfs-\d+) in vfs, (vfs-\d+) in vfs/);
    const half = await failure("volume", "rm", "sam");
    assert.match(half.stderr, /volume sam not found/);
    const ids = [...stderr.matchAll(/vfs-\d+/g)].map(String);
    await out("volume", "rm", ...ids);
  });

  it("says how it is used, with exit code 2", async () => {
    const cases: readonly (readonly [RegExp, ...string[]])[] = [
      [/"volume fly" is no command; there are volume ls/, "volume", "fly"],
      [/"fly" is no command/, "fly"],
      [/Unknown option '--sizes'/, "volume", "create", "x", "--sizes", "1"],
      [/NAME is missing/, "volume", "create"],
      [/"b" is one argument too many/, "volume", "inspect", "a", "b"],
      [/VOLUME must not be empty/, "volume", "inspect", ""],
      [/several services: name one with --service \(mock, vfs\)/, "volume", "create", "x"],
      [/"big" is no size/, "volume", "create", "x", "--size", "big"],
      [/next one above 1500M is 2G/, "volume", "create", "x", "--size", "1500M"],
      [/--size is missing/, "volume", "expand", "x"],
      [/must be KEY=VALUE/, "volume", "create", "x", "--opt", "k"],
      [/SHELL must be one of bash, zsh, fish/, "completion", "csh"],
      [/exclude each other/, "volume", "ls", "--attached", "--available"],
    ];
    for (const [expected, ...args] of cases) {
      const { code, stderr } = await failure(...args);
      assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
      assert.match(stderr, expected);
    }
  });

  it("names the next step when there is no server", async () => {
    const { code, stderr } = await run(BIN, ["volume", "ls"], { LIBSTORAGE_HOME: home });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^libstorage: no server at unix:\/\/\/var\/run\/libstorage\/libstorage\.sock.*Is libstorage-server running\? .*--host or LIBSTORAGE_HOST\n$/,
    );
    const bad = await run(BIN, ["volume", "ls", "--host", "::::"], {});
    assert.match(bad.stderr, /is no address: write tcp:\/\/HOST:PORT or unix:/);
  });

  it("reads its configuration file, and says all that is wrong in one", async () => {
    const file = join(home, "client.yml");
    await writeFile(file, `libstorage:\n  host: ${server.host}\n  service: VFS\n`);
    const { code, stdout } = await run(BIN, ["volume", "ls"], { LIBSTORAGE_CONFIG: file });
    assert.equal(code, 0);
    assert.match(stdout, /SERVICE/);
    await writeFile(
      file,
      "libstorage:\n  client: {type: both}\n  http: {disableKeepAlive: 7}\n  integration: {volume: {operations: {create: {default: {size: -1}}}}}\n",
    );
    const wrong = await run(BIN, ["volume", "ls", "-c", file], {});
    assert.equal(wrong.code, 1);
    for (const path of ["client.type", "disableKeepAlive", "default.size"])
      assert.ok(wrong.stderr.includes(path), wrong.stderr);
    assert.match((await run(BIN, ["volume", "ls", "-c", "/none.yml"])).stderr, /\/none\.yml/);
  });

  it("finds the server of its own folders", async () => {
    const { mkdir } = await import("node:fs/promises");
    await mkdir(join(home, "var/run"), { recursive: true });
    await writeFile(join(home, "var/run/libstorage.spec"), `${server.host}\n`);
    const { code, stderr } = await run(BIN, ["service", "ls"], { LIBSTORAGE_HOME: home });
    assert.equal(code, 0, stderr);
    await rm(join(home, "var/run/libstorage.spec"));
  });

  it("shows names that would confuse a terminal for what they are", async () => {
    server.intercept = (_req, res) => {
      res.end(JSON.stringify({ a: { id: "a", name: "x\u001b[31m\u202ey\n", type: "" } }));
      return true;
    };
    const text = await out("volume", "ls", "-s", "vfs");
    server.intercept = undefined;
    assert.match(text, /x\\u\{1b\}\[31m\\u\{202e\}y\\u\{a\}/);
  });

  it("has a help for every command, which names all options", async () => {
    const overview = await out("--help");
    assert.equal(await out("help"), overview);
    for (const name of COMMAND_NAMES) {
      assert.ok(overview.includes(`  ${name}`), name);
      const help = await out(...name.split(" "), "--help");
      assert.match(help, new RegExp(`^Usage: libstorage ${name}`));
      assert.match(help, /-s, --service NAME/);
    }
    assert.equal(
      await out("volume", "unmount", "-h"),
      await readFile(new URL("../../../test/golden/volume-unmount.help", import.meta.url), "utf8"),
    );
  });

  it("ends at a signal, and says what goes on", async () => {
    server.intercept = () => true;
    const child = start(BIN, ["volume", "ls"], env);
    setTimeout(() => child.kill("SIGINT"), 500);
    const { code, stderr } = await ended(child);
    server.intercept = undefined;
    assert.equal(code, 1);
    assert.match(stderr, /was ended/);
  });

  it("tails events, one line of JSON each", async () => {
    await out("volume", "create", "ev", "-s", "vfs");
    await out("volume", "rm", "ev");
    const text = await out("event", "tail", "--after", "0", "--count", "2", "--json");
    const lines = text.trim().split("\n");
    assert.equal(lines.length, 2);
    for (const line of lines)
      assert.equal(typeof (JSON.parse(line) as { id: unknown }).id, "number");
    assert.match(
      await out("event", "tail", "--after", "0", "--count", "1"),
      /^\d+ \S+ volumeCreate end vfs vfs-\d+/,
    );
  });

  it("mounts, counts, and unmounts", { skip: cannotMount() }, async () => {
    await out("volume", "create", "m", "-s", "vfs");
    const path = (await out("volume", "mount", "m")).trim();
    assert.equal(path, join(home, "var/lib/volumes/m/data"));
    await writeFile(join(path, "f"), "hello");
    const again = await libstorage("volume", "mount", "m");
    assert.match(again.stderr, /has 2 uses on this host now/);
    assert.match((await failure("volume", "detach", "m")).stderr, /is mounted at .*: unmount it/);
    assert.match(await out("volume", "unmount", "m"), /stays mounted: 1 more use \(--force/);
    await out("volume", "snapshot", "m", "s");
    assert.match(await out("volume", "unmount", "m"), /is unmounted and detached\n$/);
    await out("snapshot", "create-volume", "s", "m2");
    const place = join(home, "place");
    const copy = (await out("volume", "mount", "m2", place)).trim();
    assert.equal(copy, join(place, "data"));
    assert.equal(await readFile(join(copy, "f"), "utf8"), "hello");
    await out("volume", "unmount", "m2");
    await out("volume", "rm", "m", "m2");
    await out("snapshot", "rm", "s");
    assert.match(
      (await failure("volume", "mount", "vol-000")).stderr,
      /volumes of the driver mock have no data/,
    );
  });
});

describe("shell completion", () => {
  let server: TestServer;
  before(async () => {
    server = await startServer();
    await server.app.service.volumeCreate({ service: "vfs" }, { name: "web one" }, {});
    await server.app.service.volumeCreate({ service: "vfs" }, { name: "web2" }, {});
  });
  after(() => server.close());

  async function offered(...words: string[]): Promise<string[]> {
    const env = { LIBSTORAGE_HOST: server.host };
    const { code, stdout, stderr } = await run(BIN, ["__complete", "--", ...words], env);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    return stdout.split("\n").filter(Boolean);
  }

  it("offers commands, options, names and choices", async () => {
    const first = await offered("");
    for (const word of ["volume", "snapshot", "health"]) assert.ok(first.includes(word), word);
    assert.ok((await offered("volume", "")).includes("mount"));
    assert.ok((await offered("volume", "ls", "--")).includes("--available"));
    assert.deepEqual(await offered("volume", "ls", "-s", ""), ["mock", "vfs"]);
    const volumes = await offered("volume", "mount", "w");
    for (const name of ["web one", "web2", "vfs-000"]) assert.ok(volumes.includes(name), name);
    assert.deepEqual(await offered("volume", "mount", "web2", ""), [":folder"]);
    assert.deepEqual(await offered("completion", ""), ["bash", "zsh", "fish"]);
    assert.deepEqual(await offered("volume", "create", ""), []);
    assert.ok((await offered("volume", "rm", "web2", "")).includes("web2"));
    assert.deepEqual(await offered("-c", ""), [":file"]);
  });

  it("is silent without a server", async () => {
    const { code, stdout, stderr } = await run(BIN, ["__complete", "--", "volume", "rm", ""], {
      LIBSTORAGE_HOST: "unix:///none",
    });
    assert.deepEqual([code, stdout, stderr], [0, "", ""]);
  });

  for (const shell of ["bash", "zsh", "fish"])
    it(`has a script that ${shell} can read`, async (t) => {
      const { stdout } = await run(BIN, ["completion", shell]);
      assert.match(stdout, /libstorage __complete --/);
      const checked = spawnSync(shell, ["-n"], { input: stdout, encoding: "utf8" });
      if (checked.error !== undefined) return t.skip(`${shell} is not installed`);
      assert.equal(checked.status, 0, checked.stderr);
      return undefined;
    });

  it("works in bash, with names that have blanks", async () => {
    const { stdout: script } = await run(BIN, ["completion", "bash"]);
    const probe = `
libstorage() { ${process.execPath} ${BIN} "$@"; }
${script}
COMP_WORDS=(libstorage volume mount web); COMP_CWORD=3
_libstorage
printf '%s\\n' "\${COMPREPLY[@]}"
`;
    const env = { ...process.env, LIBSTORAGE_HOST: server.host };
    const { stdout, stderr } = await ended(spawn("bash", ["-c", probe], { env }));
    assert.deepEqual(stdout.trim().split("\n"), ["web\\ one", "web2"], stderr);
  });
});
