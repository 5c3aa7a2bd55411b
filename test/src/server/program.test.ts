import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { folderFor, request, runProgram, startProgram, until } from "./fixture.js";

interface Place {
  readonly folder: string;
  readonly socket: string;
  readonly file: string;
  readonly write: (text: string) => void;
}

const BASE = "libstorage.server.services.mock.driver: mock\n";

function placeFor(t: TestContext, more = ""): Place {
  const folder = folderFor(t);
  const socket = join(folder, "s.sock");
  const file = join(folder, "config.yml");
  const write = (text: string): void =>
    writeFileSync(
      file,
      `libstorage.server.endpoints.sock.address: unix://${socket}\n${BASE}${text}`,
    );
  write(more);
  return { folder, socket, file, write };
}

const names = async (socketPath: string): Promise<readonly string[]> =>
  Object.keys(JSON.parse((await request("http://x/services", { socketPath })).body) as object);

describe("the program", () => {
  it("serves, says where, and stops cleanly on SIGTERM", async (t) => {
    const { folder, socket, file } = placeFor(t);
    const server = await startProgram(t, folder, ["-c", file]);
    assert.deepEqual(server.endpoints, [{ name: "sock", address: `unix://${socket}` }]);
    assert.deepEqual(await names(socket), ["mock"]);
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    const spec = join(folder, "var/run/libstorage.spec");
    assert.equal(readFileSync(spec, "utf8"), `unix://${socket}\n`);
    assert.equal(statSync(server.tokenFile).mode & 0o777, 0o600);
    const admin = readFileSync(server.tokenFile, "utf8").trim();
    const shown = await request(`http://x/help/config?admin=${admin}`, { socketPath: socket });
    assert.equal(shown.status, 200);
    assert.doesNotMatch(server.log(), new RegExp(admin));
    server.signal("SIGTERM");
    assert.equal(await server.ended, 0);
    for (const left of [socket, spec, server.tokenFile])
      assert.equal(existsSync(left), false, left);
  });

  it("says what to do when its own folders cannot be used", async (t) => {
    const { folder, file } = placeFor(t);
    writeFileSync(join(folder, "plain"), "");
    const { code, err } = await runProgram(["-c", file], {
      LIBSTORAGE_HOME: join(folder, "plain"),
    });
    assert.equal(code, 1);
    assert.match(err, /^cannot \w+ \S+\/plain\S+: a part of the path is not a folder/);
    assert.doesNotMatch(err, /\n +at /);
  });

  it("takes values from flags and the environment", async (t) => {
    const folder = folderFor(t);
    const server = await startProgram(
      t,
      folder,
      ["--libstorageServerAutoEndpointMode=tcp", "--libstorageLoggingLevel", "info"],
      { LIBSTORAGE_DRIVER: "mock" },
    );
    const [endpoint] = server.endpoints;
    assert.match(endpoint?.address ?? "", /^tcp:\/\/127\.0\.0\.1:\d+$/);
    const url = endpoint?.address.replace("tcp:", "http:") ?? "";
    assert.equal((await request(`${url}/services/mock`)).status, 200);
    assert.match(server.log(), /"msg":"started"/);
  });

  it("refuses a socket that a second server answers on, with the reason and code 1", async (t) => {
    const { folder, file, socket } = placeFor(t);
    await startProgram(t, folder, ["-c", file]);
    const second = await runProgram(["-c", file], { LIBSTORAGE_HOME: join(folder, "other") });
    assert.equal(second.code, 1);
    assert.match(second.err, /another server answers on/);
    assert.deepEqual(await names(socket), ["mock"]);
  });

  it("shows every problem of a configuration and opens nothing", async (t) => {
    const { folder, file, socket } = placeFor(
      t,
      "libstorage.server.tasks.exeTimeout: soon\nlibstorage.sever.x: 1\nlibstorage.server.services.b.driver: nfs9\n",
    );
    const { code, err } = await runProgram(["-c", file], { LIBSTORAGE_HOME: folder });
    assert.equal(code, 1);
    assert.match(err, /^3 problems in .*config\.yml:/);
    assert.match(err, /libstorage\.server\.tasks\.exeTimeout: must be a duration.*not "soon"/);
    assert.match(err, /libstorage\.sever\.x: unknown key/);
    assert.match(err, /services\.b\.driver: invalid driver name: nfs9/);
    assert.equal(existsSync(socket), false);
  });

  it("knows its commands, and 2 is the code of misuse", async () => {
    const help = await runProgram(["--help"]);
    assert.equal(help.code, 0);
    for (const command of ["serve", "check", "tls", "token"]) {
      assert.match(help.out, new RegExp(`^  ${command} `, "m"));
      const own = await runProgram([command, "--help"]);
      assert.equal(own.code, 0);
      assert.match(own.out, /--help +Shows this/);
    }
    assert.match((await runProgram(["--version"])).out, /^\d+\.\d+\.\d+\n$/);
    for (const args of [
      ["nope"],
      ["--nope"],
      ["check", "extra"],
      ["tls"],
      ["tls", "init", "x"],
      ["token", "new"],
    ]) {
      const { code, err, out } = await runProgram(args);
      assert.equal(code, 2, args.join(" "));
      assert.match(err, /^try: libstorage-server/m);
      assert.equal(out, "");
    }
  });
});

describe("--check", () => {
  it("prints what each driver can do, and opens no endpoint", async (t) => {
    const { folder, file, socket } = placeFor(t, "libstorage.server.services.v.driver: vfs\n");
    const env = { LIBSTORAGE_HOME: folder };
    const { code, out } = await runProgram(["--check", "-c", file], env);
    assert.equal(code, 0, out);
    assert.match(out, /^mock +mock +opens +yes/m);
    assert.match(out, /^v +vfs +opens +yes/m);
    const json = await runProgram(["check", "-c", file, "--json"], env);
    const report = JSON.parse(json.out) as { ok: boolean; services: { abilities: object[] }[] };
    assert.equal(report.ok, true);
    assert.ok(report.services.every(({ abilities }) => abilities.length > 0));
    assert.equal(existsSync(socket), false);
  });

  it("fails when a driver cannot be opened or a certificate has ended, and shows the others", async (t) => {
    const { folder, file } = placeFor(t);
    writeFileSync(join(folder, "a-file"), "");
    writeFileSync(
      file,
      `${BASE}libstorage.server.services.v: {driver: vfs, vfs: {root: ${folder}/a-file}}\n`,
    );
    const { code, out, err } = await runProgram(["--check", "-c", file], {
      LIBSTORAGE_HOME: folder,
    });
    assert.equal(code, 1);
    assert.match(out, /^v +vfs +opens +NO +\S/m);
    assert.match(out, /^mock +mock +opens +yes/m);
    assert.match(err, /not everything is in order/);
  });
});

describe("SIGHUP", () => {
  it("applies what can change, names what cannot, and survives a broken file", async (t) => {
    const place = placeFor(t);
    const { folder, file, socket, write } = place;
    const server = await startProgram(t, folder, ["-c", file]);
    const get = async (path: string): Promise<number> =>
      (await request(`http://x${path}`, { socketPath: socket })).status;
    assert.equal(await get("/services"), 200);

    write(
      "libstorage.server.auth: {key: k, allow: anna}\nlibstorage.server.journal.path: /elsewhere\nlibstorage.server.services.fresh.driver: mock\n",
    );
    server.signal("SIGHUP");
    await server.logged(
      /only a restart applies them: libstorage\.server\.journal, libstorage\.server\.services\.fresh/,
    );
    assert.equal(await get("/services"), 401);

    writeFileSync(file, "libstorage: [\n");
    server.signal("SIGHUP");
    await server.logged(/the new configuration cannot be used; the old one stays/);
    assert.equal(await get("/services"), 401);

    write("libstorage.logging.level: debug\n");
    server.signal("SIGHUP");
    await until(async () => (await get("/services")) === 200, "the check is off again");
    server.signal("SIGTERM");
    assert.equal(await server.ended, 0);
    assert.match(server.log(), /"level":"info".*stopped/);
  });

  it("opens log files anew after they were moved away", async (t) => {
    const { folder, file, write } = placeFor(t);
    const log = join(folder, "server.log");
    write(`libstorage.logging: {level: info, stdout: ${log}, httpRequests: true}\n`);
    const server = await startProgram(t, folder, ["-c", file]);
    await until(() => readFileSync(log, "utf8").includes("started"), "the log is written");
    renameSync(log, `${log}.1`);
    server.signal("SIGHUP");
    await until(() => existsSync(log) && readFileSync(log, "utf8") !== "", "a new log is written");
    assert.equal(server.log(), "");
  });
});

describe("a stop", () => {
  it("waits for no event stream and no idle client", async (t) => {
    const { folder, file, socket } = placeFor(t);
    const server = await startProgram(t, folder, ["-c", file]);
    const idle = connect(socket);
    const stream = connect(socket);
    let said = "";
    stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
    stream.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => said.includes("text/event-stream"), "the stream is open");
    const started = Date.now();
    server.signal("SIGTERM");
    assert.equal(await server.ended, 0);
    assert.ok(Date.now() - started < 10_000);
    idle.destroy();
    stream.destroy();
  });
});

describe("token", () => {
  it("makes tokens that it can read, for shared and for paired keys", async (t) => {
    const folder = folderFor(t);
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const key = join(folder, "key.pem");
    writeFileSync(key, pair.privateKey.export({ type: "pkcs8", format: "pem" }));
    for (const args of [
      ["--key", "k"],
      ["--key", key, "--alg", "ES256"],
    ]) {
      const { code, out } = await runProgram([
        "token",
        "new",
        "anna",
        "bert",
        "--exp",
        "1h",
        ...args,
      ]);
      assert.equal(code, 0);
      const tokens = out.trim().split("\n");
      assert.equal(tokens.length, 2);
      const decoded = await runProgram(["token", "decode", tokens[1] ?? "", "--verify", ...args]);
      assert.equal(decoded.code, 0, decoded.err);
      const { claims } = JSON.parse(decoded.out) as {
        claims: { sub: string; exp: number; iat: number; nbf: number };
      };
      assert.equal(claims.sub, "bert");
      assert.equal(claims.exp - claims.iat, 3600);
      assert.equal(claims.nbf, claims.iat);
    }
  });

  it("writes what the contract says: header, claims, a year's life", async () => {
    const { out } = await runProgram(["token", "new", "anna"], { REXRAY_TOKEN_KEY: "secret" });
    const [head = "", body = "", signature] = out.trim().split(".");
    const part = (text: string): unknown => JSON.parse(Buffer.from(text, "base64url").toString());
    assert.deepEqual(part(head), { alg: "HS256", typ: "JWT" });
    const claims = part(body) as Record<string, number>;
    assert.deepEqual(Object.keys(claims).toSorted(), ["exp", "iat", "nbf", "sub"]);
    assert.equal((claims["exp"] ?? 0) - (claims["iat"] ?? 0), 8760 * 3600);
    const expected = createHmac("sha256", "secret").update(`${head}.${body}`).digest("base64url");
    assert.equal(signature, expected);
  });

  it("refuses a token of another key, of no algorithm, and no token at all", async () => {
    const { out } = await runProgram(["token", "new", "anna", "--key", "other"]);
    const b64 = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const none = `${b64({ alg: "none" })}.${b64({ sub: "anna", iat: 1, nbf: 1, exp: 9e9 })}.`;
    for (const token of [out.trim(), none, "x.y.z"]) {
      const { code, err } = await runProgram(["token", "decode", token, "--verify", "--key", "k"]);
      assert.equal(code, 1);
      assert.match(err, /the token is not valid/);
    }
  });
});

describe("tls", () => {
  it("makes certificates for both sides and shows them", async (t) => {
    const folder = join(folderFor(t), "tls");
    const run = (...args: string[]) => runProgram(["tls", ...args, "--folder", folder]);
    assert.match((await run("client", "--name", "host-1")).err, /there is no CA .* tls init/);
    assert.match((await run("init", "--host", "localhost")).out, /^made .*server\.crt/m);
    assert.match((await run("init", "--host", "localhost")).out, /^kept .*server\.crt/m);
    assert.equal((await run("client", "--name", "host-1")).code, 0);
    assert.match((await run("client", "--name", "host-1")).err, /exists: use --force/);
    assert.equal((await run("client", "--name", "host-1", "--force")).code, 0);
    assert.match((await run("client", "--name", "../host")).err, /cannot name a certificate/);
    assert.match((await run("show")).out, /host-1\.crt +CN=host-1, O=libstorage/);
    const { out } = await run("fingerprint", join(folder, "host-1.crt"));
    assert.match(out, /^[0-9a-f]{64}\n$/);
    assert.equal(statSync(join(folder, "host-1.key")).mode & 0o777, 0o600);
    assert.equal((await run("init", "--days", "0")).code, 2);
  });

  it("serves with them, and a server tells its fingerprint", async (t) => {
    const { folder } = placeFor(t);
    const tls = join(folder, "etc/tls");
    mkdirSync(tls, { recursive: true });
    await runProgram(["tls", "init", "--host", "localhost", "--folder", tls]);
    const file = join(folder, "tls.yml");
    writeFileSync(
      file,
      `${BASE}libstorage.host: tcp
libstorage.tls: {certFile: ${tls}/server.crt, keyFile: ${tls}/server.key, clientCertRequired: true}
`,
    );
    const server = await startProgram(t, folder, ["-c", file]);
    const [endpoint] = server.endpoints;
    const url = endpoint?.address ?? "";
    assert.match(url, /^https:\/\/127\.0\.0\.1:\d+$/);
    const read = (name: string): string => readFileSync(join(tls, name), "utf8");
    const options = {
      ca: read("cacerts"),
      cert: read("client.crt"),
      key: read("client.key"),
      servername: "localhost",
      agent: false as const,
    };
    const health = JSON.parse((await request(`${url}/health`, options)).body) as {
      certificates: { file: string; daysLeft: number }[];
    };
    assert.equal(health.certificates[0]?.file, `${tls}/server.crt`);
    const where = url.replace("https://", "");
    const shown = await runProgram(["tls", "fingerprint", where]);
    const own = await runProgram(["tls", "fingerprint", join(tls, "server.crt")]);
    assert.equal(shown.out, `127.0.0.1 sha256 ${own.out}`);
  });
});
