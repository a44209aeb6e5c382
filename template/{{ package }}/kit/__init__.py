"""The template's part of this plugin: `copier update` brings new versions of all of it."""
