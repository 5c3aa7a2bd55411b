/** Every command of the command line: a line each. Loaded when it is run. */
import type { Command } from "../cli/command.js";

type Load = () => Promise<{ readonly command: Command }>;

export const COMMANDS: Readonly<Record<string, Load>> = {
  "volume ls": () => import("./volume-ls.js"),
  "volume create": () => import("./volume-create.js"),
  "volume inspect": () => import("./volume-inspect.js"),
  "volume mount": () => import("./volume-mount.js"),
  "volume unmount": () => import("./volume-unmount.js"),
  "volume attach": () => import("./volume-attach.js"),
  "volume detach": () => import("./volume-detach.js"),
  "volume snapshot": () => import("./volume-snapshot.js"),
  "volume copy": () => import("./volume-copy.js"),
  "volume expand": () => import("./volume-expand.js"),
  "volume rm": () => import("./volume-rm.js"),
  "snapshot ls": () => import("./snapshot-ls.js"),
  "snapshot inspect": () => import("./snapshot-inspect.js"),
  "snapshot create-volume": () => import("./snapshot-create-volume.js"),
  "snapshot copy": () => import("./snapshot-copy.js"),
  "snapshot rm": () => import("./snapshot-rm.js"),
  "export ls": () => import("./export-ls.js"),
  "service ls": () => import("./service-ls.js"),
  "service inspect": () => import("./service-inspect.js"),
  "task ls": () => import("./task-ls.js"),
  "task inspect": () => import("./task-inspect.js"),
  "task cancel": () => import("./task-cancel.js"),
  "task wait": () => import("./task-wait.js"),
  "event tail": () => import("./event-tail.js"),
  "plugin csi": () => import("./plugin-csi.js"),
  "plugin docker": () => import("./plugin-docker.js"),
  "host check": () => import("./host-check.js"),
  health: () => import("./health.js"),
  version: () => import("./version.js"),
  completion: () => import("./completion.js"),
};
