/**
 * What a guest does with its files, as a command line of its shell and as what the files then hold: random, repeatable, and with
 * odd lengths and places, because file systems are used so. Names are never used twice, so that a wrong file cannot look right.
 */

/** Bytes that both sides have; the guest's copy is in its first file system. */
export const SEED = 'seed'

/** From there on files only go: the disk must not get full. */
const FILES_MAX = 60

type Random = () => number

export class Files {
  readonly content = new Map<string, Buffer>()
  readonly #random: Random
  readonly #seed: Buffer
  readonly #folder: string
  readonly #kept = new Set<string>()
  #made = 0

  constructor(random: Random, seed: Buffer, folder: string) {
    this.#random = random
    this.#seed = seed
    this.#folder = folder
  }

  /** One more thing happens to the files: the shell's words for it. */
  step(): string {
    const names = [...this.content.keys()].filter((name) => !this.#kept.has(name))
    const name = names[this.#below(names.length)]
    const kind = name === undefined ? 0 : names.length > FILES_MAX ? 1 : this.#random()
    if (kind < 0.35) return this.#write(this.#newName(), 0, true)
    if (kind < 0.65) return this.#write(name!, this.#below(this.content.get(name!)!.length + 70_000), false)
    if (kind < 0.75) return this.#truncate(name!)
    if (kind < 0.85) return this.#move(name!)
    this.content.delete(name!)
    return `rm ${this.#folder}/${name}`
  }

  /** Every second of the files that are there is never touched again; gives what they hold. */
  keep(): ReadonlyMap<string, Buffer> {
    const kept = [...this.content].filter((_, i) => i % 2 === 0)
    for (const [name] of kept) this.#kept.add(name)
    return new Map(kept)
  }

  #write(name: string, at: number, fresh: boolean): string {
    const length = 1 + this.#below([900, 30_000, 1_500_000][this.#below(3)]!)
    const from = this.#below(this.#seed.length - length)
    const before = fresh ? Buffer.alloc(0) : this.content.get(name)!
    const after = Buffer.alloc(Math.max(before.length, at + length))
    before.copy(after)
    this.#seed.copy(after, at, from, from + length)
    this.content.set(name, after)
    const place = `skip=${from} count=${length} seek=${at} iflag=skip_bytes,count_bytes oflag=seek_bytes`
    return `dd if=/${SEED} of=${this.#folder}/${name} bs=64k ${place} conv=notrunc 2>/dev/null`
  }

  #truncate(name: string): string {
    const before = this.content.get(name)!
    const length = this.#below(before.length + 5000)
    const after = Buffer.alloc(length)
    before.copy(after, 0, 0, length)
    this.content.set(name, after)
    return `truncate -s ${length} ${this.#folder}/${name}`
  }

  #move(name: string): string {
    const to = this.#newName()
    this.content.set(to, this.content.get(name)!)
    this.content.delete(name)
    return `mv ${this.#folder}/${name} ${this.#folder}/${to}`
  }

  #newName(): string {
    return `file-${++this.#made}`
  }

  #below(n: number): number {
    return Math.floor(this.#random() * n)
  }
}
