/**
 * A storage daemon in the path that is asked first what it can do, and says less than the one of this host: the schema
 * is the real daemon's with parts cut out. Whatever else is asked of it, the real daemon does.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { askMonitor } from "./monitor.js";

export interface SchemaEntity {
  readonly name: string;
  readonly "meta-type": string;
  readonly "arg-type"?: string;
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
  readonly members?: readonly { readonly name?: string }[];
}
export type QmpSchema = readonly SchemaEntity[];

const PROGRAM = "qemu-storage-daemon";

/** What the daemon of this host says it knows. */
export async function recordSchema(folder: string): Promise<QmpSchema> {
  const [socket, pidFile] = [join(folder, "record.sock"), join(folder, "record.pid")];
  const chardev = `socket,id=qmp,path=${socket},server=on,wait=off`;
  const args = ["--chardev", chardev, "--monitor", "chardev=qmp", "--pidfile", pidFile];
  const { status, stderr } = spawnSync(PROGRAM, [...args, "--daemonize"], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  const [schema] = await askMonitor(socket, [
    ["query-qmp-schema", {}],
    ["quit", {}],
  ]);
  return schema as QmpSchema;
}

function exportTypesOf(schema: QmpSchema): SchemaEntity {
  const { "arg-type": name } = schema.find((one) => one.name === "block-export-add") ?? {};
  const found = schema.find((one) => one.name === name);
  assert.ok(found?.variants !== undefined);
  return found;
}

/** A schema without a type of exports. */
export function withoutType(schema: QmpSchema, type: string): QmpSchema {
  const types = exportTypesOf(schema);
  const variants = types.variants?.filter((one) => one.case !== type) ?? [];
  assert.equal(variants.length + 1, types.variants?.length, `there was ${type}`);
  return schema.map((one) => (one === types ? { ...one, variants } : one));
}

/** A schema without an option of a type of exports. */
export function withoutOption(schema: QmpSchema, type: string, option: string): QmpSchema {
  const { variants } = exportTypesOf(schema);
  const of = variants?.find((one) => one.case === type)?.type;
  return schema.map((one) => {
    if (one.name !== of) return one;
    const members = one.members?.filter(({ name }) => name !== option) ?? [];
    assert.equal(members.length + 1, one.members?.length, `there was ${option}`);
    return { ...one, members };
  });
}

/** CommonJS: it stands alone, without a package around it. `REAL` is the program behind it. */
const WRAPPER = `
const { existsSync, readFileSync, writeFileSync } = require("node:fs");
const { spawn, spawnSync } = require("node:child_process");
const { createInterface } = require("node:readline");
const { join } = require("node:path");
const args = process.argv.slice(2);
const told = (name) => {
  const path = join(__dirname, name + ".json");
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
};
const after = (flag) => args[args.indexOf(flag) + 1] ?? "";
const answers = { "query-qmp-schema": told("schema"), "query-commands": told("commands") };
const isProbe = after("--pidfile").endsWith("/probe/pid");
const socket = /path=([^,]*)/.exec(after("--chardev"))?.[1];
if (args[0] === "serve") serve();
else if ((isProbe && answers["query-qmp-schema"]) || answers["query-commands"]) play();
else real();

function play() {
  spawn(process.execPath, [__filename, "serve", ...args], { detached: true, stdio: "ignore" }).unref();
  const look = setInterval(() => existsSync(socket) && clearInterval(look), 5);
}
function serve() {
  writeFileSync(after("--pidfile"), process.pid + "\\n");
  const version = { qemu: { micro: 0, minor: 2, major: 7 }, package: "" };
  require("node:net").createServer((one) => {
    one.on("error", () => {});
    one.write(JSON.stringify({ QMP: { version, capabilities: [] } }) + "\\n");
    createInterface({ input: one }).on("line", (line) => {
      const { execute, id } = JSON.parse(line);
      one.write(JSON.stringify({ return: answers[execute] ?? {}, id }) + "\\n");
    });
  }).listen(socket);
}
function real() {
  const cut = told("type");
  // A type that no daemon has: what the real one says of it is what it says of one that it was built without.
  const given = args.map((one) => (cut ? one.replace("type=" + cut + ",", "type=" + cut + "x,") : one));
  const { status, stdout, stderr } = spawnSync(REAL, given, { encoding: "utf8" });
  process.stdout.write(stdout);
  process.stderr.write(cut ? stderr.replaceAll(cut + "x", cut) : stderr);
  process.exitCode = status ?? 1;
}
`;

/** Stands in the path until it is removed. Commands of the server see it if they are the first of this process. */
export class CutDaemon {
  readonly #folder: string;
  readonly #path = process.env["PATH"] ?? "";

  constructor(parent: string) {
    const real = this.#path
      .split(delimiter)
      .map((folder) => join(folder, PROGRAM))
      .find((path) => spawnSync(path, ["--version"]).status === 0);
    this.#folder = join(parent, "bin");
    mkdirSync(this.#folder);
    const program = join(this.#folder, PROGRAM);
    const head = `#!${process.execPath}\nconst REAL = ${JSON.stringify(real)};\n`;
    writeFileSync(program, head + WRAPPER);
    chmodSync(program, 0o755);
    process.env["PATH"] = `${this.#folder}${delimiter}${this.#path}`;
  }

  /** What it says from now on: of its schema, of its commands, or of a type of exports that it was built without. */
  says(what: "schema" | "commands" | "type", value: unknown): void {
    writeFileSync(join(this.#folder, `${what}.json`), JSON.stringify(value));
  }

  /** It is the real one from now on. */
  isWhole(): void {
    for (const what of ["schema", "commands", "type"])
      rmSync(join(this.#folder, `${what}.json`), { force: true });
  }

  remove(): void {
    process.env["PATH"] = this.#path;
  }
}

/** The commands that a schema has, as `query-commands` tells them. */
export function commandsOf(schema: QmpSchema): readonly { readonly name: string }[] {
  return schema.filter((one) => one["meta-type"] === "command").map(({ name }) => ({ name }));
}
