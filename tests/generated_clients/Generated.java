package javax.annotation;

/** The annotation that generated classes carry; a client's build takes it from a library. */
public @interface Generated {
    String[] value();

    String date() default "";

    String comments() default "";
}
