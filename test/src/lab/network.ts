/** A link between two machines that tests can cut. No network of the host is touched. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startMachine } from "./machine.js";
import type { Card, Machine, MachineOptions } from "./machine.js";
import type { Qmp } from "./qmp.js";

/** `silent`: packets are lost, as in a broken switch. `unplugged`: the cards see that there is no carrier. */
export type CutKind = "silent" | "unplugged";

const LINK = { silent: "wire", unplugged: "card" } as const satisfies Record<CutKind, string>;

export class Network {
  readonly addresses = ["10.99.0.1", "10.99.0.2"] as const;
  readonly cards: readonly [Card, Card];
  readonly #folder = mkdtempSync(join(tmpdir(), "lab-net-"));
  readonly #ends: [Qmp | undefined, Qmp | undefined] = [undefined, undefined];
  #cut: CutKind | undefined;

  constructor() {
    this.cards = [this.#card(0), this.#card(1)];
    process.once("exit", () => this.remove());
  }

  /** Nothing gets through any more, in either direction; connections are not told. */
  async cut(kind: CutKind = "silent"): Promise<void> {
    await this.restore();
    this.#cut = kind;
    await this.#apply(LINK[kind], false);
  }

  async restore(): Promise<void> {
    if (this.#cut === undefined) return;
    const link = LINK[this.#cut];
    this.#cut = undefined;
    await this.#apply(link, true);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #apply(name: string, up: boolean): Promise<void> {
    for (const end of this.#ends)
      // A machine that is down has no link.
      await end?.ask("set_link", { name, up }).catch((error: Error) => {
        if (!/has ended/.test(error.message)) throw error;
      });
  }

  #card(index: 0 | 1): Card {
    const path = (end: number): string => join(this.#folder, `end${end}`);
    const wire = `dgram,id=wire,local.type=unix,local.path=${path(index)},remote.type=unix,remote.path=${path(1 - index)}`;
    const mac = `52:54:00:00:00:0${index + 1}`;
    return {
      address: `${this.addresses[index]}/24`,
      mac,
      arguments: [
        ["-netdev", wire],
        // A hub between wire and card: without it a wire that is down takes the card's carrier with it.
        ["-netdev", "hubport,id=hub-wire,hubid=0,netdev=wire"],
        ["-netdev", "hubport,id=hub-card,hubid=0"],
        ["-device", `virtio-net-pci,id=card,netdev=hub-card,romfile=,mac=${mac}`],
      ].flat(),
      started: async (qmp) => {
        this.#ends[index] = qmp;
        if (this.#cut !== undefined)
          await qmp.ask("set_link", { name: LINK[this.#cut], up: false });
      },
    };
  }
}

export interface Hosts {
  readonly a: Machine;
  readonly b: Machine;
  readonly network: Network;
  remove(): Promise<void>;
}

/** Two machines, `a` (10.99.0.1) and `b` (10.99.0.2), which know each other by these names. */
export async function startTwoHosts(
  options: Readonly<Record<"a" | "b", Omit<MachineOptions, "name" | "card">>>,
): Promise<Hosts> {
  const network = new Network();
  const started = await Promise.allSettled(
    (["a", "b"] as const).map(async (name, index) => {
      const card = network.cards[index === 0 ? 0 : 1];
      return startMachine({ cpus: 1, ...options[name], name, card });
    }),
  );
  const machines = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const remove = async (): Promise<void> => {
    await Promise.all(machines.map(async (machine) => machine.remove()));
    network.remove();
  };
  const [a, b] = machines;
  if (a !== undefined && b !== undefined) return { a, b, network, remove };
  await remove();
  throw new AggregateError(
    started.flatMap((one) => (one.status === "rejected" ? [one.reason] : [])),
  );
}
