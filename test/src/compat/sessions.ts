/**
 * Which traces were recorded from one server without a restart, and how that server was configured, as
 * far as the notes and answers tell. `ROOT` stands for a folder of the replay.
 */
import type { App } from "@libstorage/server";
import { REPLAY_KEY } from "./tokens.js";

export interface Session {
  readonly traces: readonly string[];
  readonly config: string;
  /** What was there before the recording began. */
  readonly prepare?: (service: App["service"]) => Promise<unknown>;
}

function vfs(services: readonly string[], more = "", perService = ""): string {
  const blocks = services.map(
    (name) => `
      ${name}:
        driver: vfs
        vfs: {root: ROOT/${name}}${perService}`,
  );
  return `
libstorage:
  server:
    services:${blocks.join("")}
${more}`;
}

const SHAREABLE = `
        shareable: true`;

const GLOBAL_AUTH = `
    auth:
      key: ${REPLAY_KEY}
      allow: [alice, bob]
      deny: [mallory, bob]`;

/** The configuration as `/help/config` showed it. */
const HELP_CONFIG = `
libstorage:
  server:
    endpoints:
      http:
        address: tcp://127.0.0.1:7984
    parseRequestOpts: true
    services:
      vfs:
        driver: vfs
        vfs:
          root: ROOT/vfs
    tasks:
      exeTimeout: 1ns
      logTimeout: 10m`;

const GUARDED = `
libstorage:
  server:
    services:
      open:
        driver: vfs
        vfs: {root: ROOT/open}
      guarded:
        driver: vfs
        vfs: {root: ROOT/guarded}
        auth:
          key: ${REPLAY_KEY}
          allow: carol`;

/** A volume that another host holds, for the client that takes it away. */
async function heldElsewhere(service: App["service"]): Promise<void> {
  const { id } = await service.volumeCreate({ service: "vfs2" }, { name: "pre", size: 1 }, {});
  const instanceIDs = [{ id: "other", driver: "vfs", service: "" }];
  await service.volumeAttach(
    { service: "vfs2", volumeID: id },
    { nextDeviceName: "/dev/xvda" },
    { instanceIDs },
  );
}

/** The recording's first volume had been removed; ids only grow. */
async function oneRemoved(service: App["service"]): Promise<void> {
  const { id } = await service.volumeCreate({ service: "vfs" }, { name: "t1" }, {});
  await service.volumeRemove({ service: "vfs", volumeID: id }, undefined, {});
}

const TWO = ["vfs", "vfs2"];

export const SESSIONS: readonly Session[] = [
  { traces: ["services", "root-and-help", "vfs-lifecycle", "errors"], config: vfs(TWO) },
  {
    traces: ["volumes-attachments-masks", "volume-inspect-masks", "list-and-detach-all"],
    config: vfs(TWO, "", SHAREABLE),
  },
  { traces: ["tasks-async"], config: vfs(TWO) },
  { traces: ["filters", "header-formats"], config: vfs(TWO), prepare: oneRemoved },
  { traces: ["tasks-timeout-408", "help-config-admin"], config: HELP_CONFIG },
  { traces: ["parse-request-opts"], config: vfs(["vfs"], "    parseRequestOpts: true") },
  { traces: ["auth-global"], config: vfs(["vfs"], GLOBAL_AUTH) },
  { traces: ["auth-per-service"], config: GUARDED },
  { traces: ["mock-driver"], config: "libstorage: {server: {services: {mock: {driver: mock}}}}" },
  { traces: ["executors-0.6.2"], config: vfs(TWO) },
  { traces: ["go-client-0.6.2"], config: vfs(TWO) },
  { traces: ["go-client-auth"], config: vfs(["vfs"], GLOBAL_AUTH) },
  { traces: ["go-client-cli-lifecycle"], config: vfs(TWO) },
  { traces: ["go-client-docker-module"], config: vfs(TWO) },
  { traces: ["go-client-docker-preempt"], config: vfs(TWO), prepare: heldElsewhere },
];
