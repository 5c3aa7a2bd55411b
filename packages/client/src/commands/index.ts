/** Every command of the command line: a line each. Loaded when it is run. */
import type { Command } from "../cli/command.js";

type Load = () => Promise<{ readonly command: Command }>;

export const COMMANDS: Readonly<Record<string, Load>> = {
  "volume ls": () => import("./volume-ls.js"),
  "volume create": () => import("./volume-create.js"),
};
