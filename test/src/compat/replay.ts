/** Replays recorded sessions against this project's server and collects what differs. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { Agent, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DRIVERS, SILENT, loadConfig, openApp } from "@libstorage/server";
import type { App } from "@libstorage/server";
import { compare } from "./compare.js";
import type { Answer, Difference } from "./compare.js";
import { send } from "./exchange.js";
import { Identities } from "./identities.js";
import type { Session } from "./sessions.js";
import { Resigner } from "./tokens.js";
import { headerOf, readTrace } from "./traces.js";
import type { Recorded, RecordedRequest, RecordedResponse } from "./traces.js";

/** Stands for the admin token in the recordings. */
const ADMIN_TOKEN = "c0ffee00-0000-4000-8000-000000000000";
/** Stands for the folder in the recordings. */
const RECORDED_ROOT = "/REDACTED";
const EXECUTORS = ["lsx-darwin", "lsx-linux"];

interface Replayed {
  readonly app: App;
  readonly port: number;
  readonly agent: Agent;
  readonly folder: string;
  readonly identities: Identities;
}

/** An executor's bytes are not ours to compare; that they fit their headers, the REST tests check. */
const BINARY = /^<binary, \d+ bytes>$/;

function ourBody(text: string, { app, folder }: Replayed): string {
  return text.replaceAll(folder, RECORDED_ROOT).replaceAll(app.adminToken, ADMIN_TOKEN);
}

function prepared(
  { request }: Recorded,
  { app, identities }: Replayed,
  tokens: Resigner,
): RecordedRequest {
  const path = identities.path(request.path).replace(ADMIN_TOKEN, app.adminToken);
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [
      name,
      name === "Authorization" && typeof value === "string" ? tokens.header(value) : value,
    ]),
  );
  return { ...request, path, headers };
}

/** What asks for a task's result was recorded after its end. */
async function settled({ operations }: App["storage"]): Promise<void> {
  const isDone = (): boolean =>
    operations.tasks.all().every(({ state }) => state === "success" || state === "error");
  const deadline = Date.now() + 10_000;
  while (!isDone() && Date.now() < deadline)
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
    });
}

function expected(
  response: RecordedResponse,
  answer: Answer,
  replayed: Replayed,
): RecordedResponse {
  const { body } = response;
  if (body !== null && BINARY.test(body)) return { ...response, body: answer.body };
  return replayed.identities.response(response);
}

async function replayTrace(trace: string, replayed: Replayed): Promise<Difference[]> {
  const differences: Difference[] = [];
  const recordings = await readTrace(trace);
  const recordedAt = headerOf(recordings[0]?.response.headers ?? {}, "date");
  const tokens = new Resigner(Date.parse(recordedAt ?? ""));
  for (const [index, recorded] of recordings.entries()) {
    await settled(replayed.app.storage);
    const { port, agent, identities } = replayed;
    const answer = await send(prepared(recorded, replayed, tokens), port, agent);
    const ours = { ...answer, body: ourBody(answer.body, replayed) };
    identities.learn(recorded, ours);
    const { method, path } = recorded.request;
    const wanted = expected(recorded.response, ours, replayed);
    differences.push(...compare({ trace, index, method, path }, wanted, ours));
  }
  return differences;
}

async function executorsIn(folder: string): Promise<string> {
  const executors = join(folder, "executors");
  await mkdir(executors);
  for (const name of EXECUTORS) await writeFile(join(executors, name), `#!/bin/sh\n# ${name}\n`);
  return executors;
}

/** Every difference of one session, over HTTP, against a server of its own. */
export async function replay({ traces, config, prepare }: Session): Promise<Difference[]> {
  const folder = await mkdtemp(join(tmpdir(), "libstorage-replay-"));
  const app = await openApp(
    loadConfig(DRIVERS, {
      text: config.replaceAll("ROOT", folder),
      env: { LIBSTORAGE_HOME: join(folder, "home") },
      isRoot: false,
    }),
    { log: SILENT, executorsFolder: await executorsIn(folder) },
  );
  const server = createServer((req, res) => app.handler(req, res));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    await prepare?.(app.service);
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    const { port } = server.address() as AddressInfo;
    const replayed = { app, port, agent, folder, identities: new Identities() };
    const differences: Difference[] = [];
    for (const trace of traces) differences.push(...(await replayTrace(trace, replayed)));
    return differences;
  } finally {
    agent.destroy();
    server.closeAllConnections();
    server.close();
    await app.close();
    await rm(folder, { recursive: true, force: true });
  }
}
