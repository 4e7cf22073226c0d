/** Shapes of the library's arguments, checked at the door: what is wrong is said in words, before anything looks inside. */

export function needObject(what: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${what} must be an object, not ${nameOf(value)}`)
}

export function needArray(what: string, value: unknown): asserts value is readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`${what} must be an array, not ${nameOf(value)}`)
}

/** Each member an object. */
export function needObjects(what: string, value: unknown): asserts value is readonly object[] {
  needArray(what, value)
  value.forEach((member, index) => {
    needObject(`${what}[${index}]`, member)
  })
}

/** What an option may be: a count is a whole number from 1, a time in ms any number from 0. */
type Kind = 'flag' | 'text' | 'texts' | 'function' | 'signal' | 'count' | 'ms'

const KINDS: Readonly<Record<Kind, { readonly noun: string; readonly is: (value: unknown) => boolean }>> = {
  flag: { noun: 'true or false', is: (value) => typeof value === 'boolean' },
  text: { noun: 'a string', is: (value) => typeof value === 'string' },
  texts: {
    noun: 'an array of strings',
    is: (value) => Array.isArray(value) && value.every((one) => typeof one === 'string'),
  },
  function: { noun: 'a function', is: (value) => typeof value === 'function' },
  signal: { noun: 'an AbortSignal', is: (value) => value instanceof AbortSignal },
  count: { noun: 'a whole number from 1', is: (value) => Number.isSafeInteger(value) && Number(value) >= 1 },
  ms: { noun: 'a number of ms from 0', is: (value) => Number.isFinite(value) && Number(value) >= 0 },
}

/** Options that are left out are right; the kinds of those that are there are looked at before anything is done (R21). */
export function needOptions(value: unknown, kinds: Readonly<Record<string, Kind>>): asserts value is object {
  needObject('the options', value)
  for (const [key, kind] of Object.entries(kinds)) {
    const given = (value as Readonly<Record<string, unknown>>)[key]
    if (given !== undefined && !KINDS[kind].is(given))
      throw new TypeError(`${key} must be ${KINDS[kind].noun}, not ${nameOf(given)}`)
  }
}

/** A file or folder, by its path. */
export function needPath(what: string, value: unknown): asserts value is string {
  if (typeof value !== 'string' || value === '')
    throw new TypeError(`${what} must be a path, not ${value === '' ? 'empty' : nameOf(value)}`)
}

/** Byte ranges as pairs. */
export function needExtents(what: string, value: unknown): void {
  needArray(what, value)
  value.forEach((extent, index) => {
    if (!Array.isArray(extent) || extent.length !== 2 || !extent.every((part) => typeof part === 'number'))
      throw new TypeError(`${what}[${index}] must be [offset, length]`)
  })
}

const NAMES = ['disk', 'bitmap', 'backup', 'checkpoint', 'group'] as const
const FLAGS = ['forceCycle', 'quiet', 'persistent', 'disabled'] as const
const NUMBERS = ['size', 'slice', 'generation', 'retention', 'granularity', 'writes'] as const

/** What every command has in common: names are text, numbers numbers, flags flags. Values are its own family's to judge. */
export function needCommand(command: unknown): void {
  needObject('a command', command)
  const given = command as Readonly<Record<string, unknown>>
  const need = (keys: readonly string[], type: string, noun: string) => {
    for (const key of keys) {
      const value = given[key]
      if (value !== undefined && typeof value !== type)
        throw new TypeError(`${key} must be ${noun}, not ${nameOf(value)}`)
    }
  }
  need(['type'], 'string', 'the name of a command')
  need(NAMES, 'string', 'a string')
  need(NUMBERS, 'number', 'a number')
  need(FLAGS, 'boolean', 'true or false')
  if ('bitmaps' in given) needObjects('bitmaps', given.bitmaps)
  if ('sources' in given) needObjects('sources', given.sources)
  if ('of' in given) needArray('of', given.of)
  if (given.extents !== undefined) needExtents('extents', given.extents)
  if (given.uncopied !== undefined) needExtents('uncopied', given.uncopied)
  for (const refs of [given.bitmaps, given.sources])
    for (const ref of (refs ?? []) as object[]) needCommand(ref)
}

function nameOf(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number') return String(value)
  return Array.isArray(value) ? 'an array' : typeof value
}
