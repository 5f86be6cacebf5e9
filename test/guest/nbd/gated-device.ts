import { MemoryDevice } from './memory-device.ts';

/** Holds every read until it is let go, and counts the most that were in it at once. */
export class GatedDevice extends MemoryDevice {
  readonly waiting: (() => void)[] = [];
  mostReads = 0;
  /** Called when a read has begun to wait. */
  entered: (length: number) => void = () => {};

  override async read(offset: number, length: number): Promise<Buffer> {
    await new Promise<void>((resolve) => {
      this.waiting.push(resolve);
      this.mostReads = Math.max(this.mostReads, this.waiting.length);
      this.entered(length);
    });
    return super.read(offset, length);
  }

  /** Resolves when `count` reads wait. */
  async untilWaiting(count: number): Promise<void> {
    while (this.waiting.length < count) {
      await new Promise<void>((resolve) => {
        this.entered = () => resolve();
      });
    }
  }

  letAllGo(): void {
    for (const go of this.waiting.splice(0)) go();
  }
}

/** Enough turns of the event loop for anything that could still happen on a local socket to happen. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
