/** A folder, certificates, and servers: in this process, or the program as a user starts it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestContext } from "node:test";
import { makeCA, makeCertificate } from "@libstorage/server";
import type { KeyAndCertificate } from "@libstorage/server";

export const BIN = fileURLToPath(
  new URL("../../../packages/server/bin/libstorage-server.mjs", import.meta.url),
);
export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A folder that is gone after the test. */
export function folderFor(t: Pick<TestContext, "after">): string {
  const folder = mkdtempSync(join(tmpdir(), "ls-server-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a pair below a folder. */
export function save(folder: string, name: string, pair: KeyAndCertificate): void {
  writeFileSync(join(folder, `${name}.key`), pair.key, { mode: 0o600 });
  writeFileSync(join(folder, `${name}.crt`), pair.certificate);
}

export interface Certificates {
  readonly ca: KeyAndCertificate;
  readonly server: KeyAndCertificate;
  readonly renewed: KeyAndCertificate;
  readonly client: KeyAndCertificate;
  readonly foreign: KeyAndCertificate;
  readonly expired: KeyAndCertificate;
}

let made: Promise<Certificates> | undefined;

/** Keys take a while to make, so one set serves all tests of a file. */
export function certificates(): Promise<Certificates> {
  made ??= makeAll();
  return made;
}

async function makeAll(): Promise<Certificates> {
  const ca = await makeCA({ commonName: "test CA", days: 30 });
  const other = await makeCA({ commonName: "other CA", days: 30 });
  const names = ["localhost", "127.0.0.1"];
  const [server, renewed, client, foreign, expired] = await Promise.all([
    makeCertificate("server", ca, { commonName: "localhost", days: 20, names }),
    makeCertificate("server", ca, { commonName: "localhost", days: 90, names }),
    makeCertificate("client", ca, { commonName: "host-1", days: 20 }),
    makeCertificate("client", other, { commonName: "stranger", days: 20 }),
    makeCertificate("client", ca, { commonName: "late", days: -1 }),
  ]);
  return { ca, server, renewed, client, foreign, expired };
}

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: http.IncomingHttpHeaders;
}

/** One request. Rejects when the connection fails. */
export function request(
  url: string,
  options: https.RequestOptions & { readonly body?: string } = {},
): Promise<Answer> {
  const send = url.startsWith("https:") ? https.request : http.request;
  const { body: content, ...rest } = options;
  return new Promise((resolve, reject) => {
    const req = send(url, rest, (res) => {
      let body = "";
      res.on("data", (chunk: Buffer) => (body += chunk.toString()));
      res.on("error", reject);
      res.on("end", () => resolve({ status: res.statusCode ?? 0, body, headers: res.headers }));
    });
    req.on("error", reject);
    req.end(content);
  });
}

/** Everything that comes over a raw connection until its end. */
export async function talk(
  where: { readonly port: number } | { readonly path: string },
  act: (socket: Socket) => void | Promise<void>,
): Promise<string> {
  const socket = connect({ ...where, allowHalfOpen: true });
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  // A server that cuts a connection off may reset it; what it said before counts.
  socket.on("error", () => {});
  const closed = once(socket, "close");
  await once(socket, "connect");
  await act(socket);
  socket.once("end", () => socket.end());
  await closed;
  return text;
}

export interface StartedServer {
  readonly pid: number;
  readonly endpoints: readonly { readonly name: string; readonly address: string }[];
  readonly tokenFile: string;
  /** What it wrote to standard error so far. */
  log(): string;
  /** Resolves once the log matches. */
  logged(pattern: RegExp): Promise<void>;
  signal(name: NodeJS.Signals): void;
  /** The exit code. */
  readonly ended: Promise<number | null>;
}

/** Starts the program and waits until its endpoints are open. */
export async function startProgram(
  t: TestContext,
  home: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<StartedServer> {
  const child = spawn(process.execPath, [BIN, "serve", "--json", ...args], {
    env: { ...process.env, LIBSTORAGE_HOME: home, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const ended = once(child, "exit").then(([code]) => code as number | null);
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  await until(() => out.includes("\n") || child.exitCode !== null, "the server starts");
  if (child.exitCode !== null) throw new Error(`the server ended: ${errors}`);
  const said = JSON.parse(out) as Pick<StartedServer, "pid" | "endpoints" | "tokenFile">;
  return {
    ...said,
    log: () => errors,
    logged: (pattern) =>
      until(
        () => pattern.test(errors),
        `the log says ${pattern}`,
        () => errors,
      ),
    signal: (name) => void child.kill(name),
    ended,
  };
}

/** Runs the program to its end. */
export async function runProgram(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  const child = spawn(process.execPath, [BIN, ...args], { env: { ...process.env, ...env } });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out, err };
}

/** Waits for a condition, at most 20 seconds. */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string,
  detail: () => string = () => "",
): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what} ${detail()}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
  }
}
