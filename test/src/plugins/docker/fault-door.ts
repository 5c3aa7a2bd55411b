/** The plugin's doors with a fault in them: one command or one request of one call fails, or is its end. */
import { StorageError } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { leaveHalf } from "../half-made.js";

export interface FaultPlan {
  /** `before`: it is not done; `after`: it is done, and nobody hears of it. */
  readonly mode: "fail" | "kill";
  /**
   * The point at which it happens, from 1. Each command and each request has two: before and after. One that
   * makes a file system has a third, in its middle.
   */
  readonly at: number;
}

type Call = (...args: readonly unknown[]) => Promise<unknown>;

export class FaultDoor {
  /** Points so far, since it was armed. */
  passed = 0;
  #plan: FaultPlan | undefined;

  arm(plan: FaultPlan | undefined): void {
    this.passed = 0;
    this.#plan = plan;
  }

  #point(what: string): void {
    if (this.#plan === undefined) return;
    this.passed += 1;
    if (this.passed !== this.#plan.at) return;
    if (this.#plan.mode === "kill") process.kill(process.pid, "SIGKILL");
    throw new StorageError("unavailable", `planned: ${what}`);
  }

  async #through<T>(what: string, act: () => Promise<T>): Promise<T> {
    this.#point(`before ${what}`);
    const result = await act();
    this.#point(`after ${what}`);
    return result;
  }

  readonly exec: Exec = (file, args, options) =>
    this.#through(file, async () => {
      if (!file.startsWith("mkfs.")) return runCommand(file, args, options);
      if (this.#plan?.at === this.passed + 1) {
        await runCommand(file, args, options);
        await leaveHalf(file, args.at(-1) ?? "");
      }
      this.#point(`in the middle of ${file}`);
      return runCommand(file, args, options);
    });

  readonly wrapService = (service: VolumeService): VolumeService =>
    new Proxy(service, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return (...args: readonly unknown[]) =>
          this.#through(String(name), () => (member as Call)(...args));
      },
    });
}
