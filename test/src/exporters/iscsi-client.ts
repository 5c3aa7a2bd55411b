/** An initiator in user space: qemu-io and the tools of libiscsi. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { createServer } from "node:net";
import type { AttachmentRecord } from "@libstorage/server";

export interface Identity {
  readonly initiator: string;
  readonly user?: string;
  readonly secret?: string;
  readonly targetUser?: string;
  readonly targetSecret?: string;
}

export interface Done {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What is not installed, or false. */
export function toolsMissing(...tools: readonly string[]): string | false {
  const missing = tools.filter((tool) => spawnSync(tool, ["--help"]).error !== undefined);
  return missing.length > 0 && `${missing.join(", ")} not installed`;
}

export function tgtMissing(): string | false {
  if (process.getuid?.() !== 0) return "tgtd needs root";
  return toolsMissing("tgtd", "tgtadm", "iscsi-inq", "qemu-io");
}

/** A port of loopback that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

function portalOf({ fields = {} }: AttachmentRecord): string {
  return fields["portals"]?.split(",")[0] ?? "";
}

/** The block device as qemu names it. */
function nodeOf(to: AttachmentRecord, { initiator, user, secret }: Identity): string[] {
  const node = {
    driver: "raw",
    file: {
      driver: "iscsi",
      transport: "tcp",
      portal: portalOf(to),
      target: to.fields?.["iqn"],
      lun: Number(to.fields?.["lun"]),
      "initiator-name": initiator,
      ...(user !== undefined && { user, "password-secret": "s" }),
    },
  };
  const secrets = secret === undefined ? [] : ["--object", `secret,id=s,data=${secret}`];
  return [...secrets, "-t", "none", `json:${JSON.stringify(node)}`];
}

function run(
  file: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Done> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...env }, timeout: 30_000, killSignal: "SIGKILL" };
    execFile(file, [...args], options as object, (error, stdout, stderr) =>
      resolve({
        code: error === null ? 0 : typeof error.code === "number" ? error.code : null,
        stdout: String(stdout),
        stderr: String(stderr),
      }),
    );
  });
}

function chapEnvironment({ user, secret, targetUser, targetSecret }: Identity) {
  return {
    ...(user !== undefined && { LIBISCSI_CHAP_USERNAME: user }),
    ...(secret !== undefined && { LIBISCSI_CHAP_PASSWORD: secret }),
    ...(targetUser !== undefined && { LIBISCSI_CHAP_TARGET_USERNAME: targetUser }),
    ...(targetSecret !== undefined && { LIBISCSI_CHAP_TARGET_PASSWORD: targetSecret }),
  };
}

/** Asks a LUN who it is. */
export function inquire(to: AttachmentRecord, who: Identity, page?: number): Promise<Done> {
  const pages = page === undefined ? [] : ["-e", "1", "-c", String(page)];
  const url = `iscsi://${portalOf(to)}/${to.fields?.["iqn"]}/${to.fields?.["lun"]}`;
  return run("iscsi-inq", ["-i", who.initiator, ...pages, url], chapEnvironment(who));
}

/** The names of all targets that an initiator sees. */
export async function discover(portal: string, initiator: string): Promise<readonly string[]> {
  const { stdout } = await run("iscsi-ls", ["-i", initiator, `iscsi://${portal}`]);
  return [...stdout.matchAll(/^Target:(\S+) /gm)].map(([, iqn = ""]) => iqn);
}

export async function capacity(to: AttachmentRecord, who: Identity): Promise<number> {
  const url = `iscsi://${portalOf(to)}/${to.fields?.["iqn"]}/${to.fields?.["lun"]}`;
  const args = ["-i", who.initiator, url];
  const { stdout } = await run("iscsi-readcapacity16", args, chapEnvironment(who));
  return Number(/^Total size:(\d+)/m.exec(stdout)?.[1] ?? -1);
}

/** Runs commands of qemu-io, such as `write -P 7 0 4k`. */
export function io(to: AttachmentRecord, who: Identity, ...commands: string[]): Promise<Done> {
  const list = commands.flatMap((command) => ["-c", command]);
  const args = nodeOf(to, who);
  return run("qemu-io", [...list, ...args]);
}

/**
 * Writes without a pause from the start on: block n gets the byte n, modulo 256, and begins again when the volume is
 * full. It tries for ever.
 */
export function startWriter(to: AttachmentRecord, who: Identity, sizeBytes: number) {
  const child = spawn("qemu-io", nodeOf(to, who), { stdio: ["pipe", "pipe", "pipe"] });
  const blocks = sizeBytes / 4096;
  let written = 0;
  let asked = 0;
  const ask = (): void => {
    asked += 1;
    child.stdin.write(`write -q -P ${asked % 256} ${(asked % blocks) * 4096} 4096\n`);
  };
  child.stdin.on("error", () => {});
  let text = "";
  child.stdout.on("data", (data: Buffer) => {
    text += data.toString();
    // It prompts after each command.
    const prompts = text.split("qemu-io> ").length - 1;
    text = text.slice(text.lastIndexOf("qemu-io> ") + (prompts > 0 ? 9 : 0));
    written += prompts;
    for (let count = 0; count < prompts; count++) ask();
  });
  // Several in the queue, so that it never waits for us.
  for (let count = 0; count < 8; count++) ask();
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return {
    get written() {
      return written;
    },
    async end(): Promise<void> {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
