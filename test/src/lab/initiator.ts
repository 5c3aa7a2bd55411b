/** open-iscsi by hand, on a machine of the lab. */
import type { AttachmentRecord } from "@libstorage/server";
import { until } from "./limit.js";
import type { Machine } from "./machine.js";

export interface Passwords {
  readonly user?: string;
  readonly secret?: string;
  readonly targetUser?: string;
  readonly targetSecret?: string;
}

export class Initiator {
  readonly machine: Machine;
  readonly name: string;
  #last: Promise<void> = Promise.resolve();

  private constructor(machine: Machine, name: string) {
    this.machine = machine;
    this.name = name;
  }

  /** @param replacementSeconds how long writes to a target that is gone wait before they fail */
  static async start(machine: Machine, name: string, replacementSeconds = 20): Promise<Initiator> {
    const values = {
      "node.session.timeo.replacement_timeout": replacementSeconds,
      "node.conn[0].timeo.logout_timeout": 5,
    };
    const edits = Object.entries(values).map(
      ([key, value]) => `-e 's/^${key.replaceAll(/[[\]]/g, "\\$&")} = .*/${key} = ${value}/'`,
    );
    await machine.run(
      `echo InitiatorName=${name} > /etc/iscsi/initiatorname.iscsi
       sed -i ${edits.join(" ")} /etc/iscsi/iscsid.conf
       modprobe -a iscsi_tcp sd_mod && iscsid`,
    );
    return new Initiator(machine, name);
  }

  /** Calls of iscsiadm look at the records of all targets, and fail on those that another call removes meanwhile. */
  async #alone<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#last.then(act);
    this.#last = result.then(
      () => {},
      () => {},
    );
    return result;
  }

  #node({ fields = {} }: AttachmentRecord): string {
    const portal = fields["portals"]?.split(",")[0] ?? "";
    return `iscsiadm -m node -T ${fields["iqn"]} -p ${portal}`;
  }

  /** Tells the target's name and passwords, without a discovery. */
  async #know(to: AttachmentRecord, passwords: Passwords = {}): Promise<void> {
    const node = this.#node(to);
    const { user, secret, targetUser, targetSecret } = passwords;
    const values = {
      ...(user !== undefined && { authmethod: "CHAP", username: user, password: secret }),
      ...(targetUser !== undefined && { username_in: targetUser, password_in: targetSecret }),
    };
    const updates = Object.entries(values).map(
      ([name, value]) => `${node} -o update -n node.session.auth.${name} -v '${value}'`,
    );
    await this.machine.run([`${node},1 -o new`, ...updates].join(" && "));
  }

  /** @returns iscsiadm's exit code: 0, 8 no answer, 19 no such target, 24 not authorized */
  async tryLogin(to: AttachmentRecord, passwords: Passwords = {}): Promise<number | null> {
    const node = this.#node(to);
    return this.#alone(async () => {
      await this.#know(to, passwords);
      const { code } = await this.machine.attempt(
        `${node} -o update -n node.session.initial_login_retry_max -v 1 && ${node} --login`,
      );
      return code;
    });
  }

  /** Logs in and waits for the device by the link that the server told. @returns the node, such as `sda` */
  async login(to: AttachmentRecord, passwords: Passwords = {}): Promise<string> {
    await this.#alone(async () => {
      await this.#know(to, passwords);
      await this.machine.run(`${this.#node(to)} --login && udevadm settle`);
    });
    return this.device(to);
  }

  /** As `login`, for several without passwords, in one go. @returns the nodes in their order */
  async loginAll(all: readonly AttachmentRecord[]): Promise<string[]> {
    const commands = all.map((to) => `${this.#node(to)},1 -o new\n${this.#node(to)} --login`);
    const limitMs = 30_000 + 30_000 * all.length;
    await this.#alone(() =>
      this.machine.run(`set -e\n${commands.join("\n")}\nudevadm settle`, { limitMs }),
    );
    return Promise.all(all.map((to) => this.device(to)));
  }

  /** Forgets them, logged in or not. */
  async logoutAll(all: readonly AttachmentRecord[]): Promise<void> {
    const commands = all.map((to) => `${this.#node(to)} --logout; ${this.#node(to)} -o delete`);
    const limitMs = 30_000 + 30_000 * all.length;
    await this.#alone(() => this.machine.attempt(commands.join("\n"), { limitMs }));
  }

  async device({ deviceName }: AttachmentRecord): Promise<string> {
    const path = await until(`${deviceName} is there`, async () => {
      const { code, stdout } = await this.machine.attempt(
        `test -b ${deviceName} && readlink -f ${deviceName}`,
      );
      return code === 0 && stdout.trim();
    });
    return path.replace("/dev/", "");
  }

  async rescan(to: AttachmentRecord): Promise<void> {
    await this.machine.run(`${this.#node(to)} -R && udevadm settle`);
  }

  /** Forgets the target, logged in or not. */
  async logout(to: AttachmentRecord): Promise<void> {
    const node = this.#node(to);
    await this.#alone(() => this.machine.attempt(`${node} --logout; ${node} -o delete`));
  }
}
